// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Streams, schemas, colours and progress.

use std::io::Read;
use std::process::Stdio;

use serde_json::Value;

use crate::harness::World;

/// Whoever reads our output may go away: that is no error.
#[test]
fn a_broken_pipe_is_silent() {
    let world = World::with_history();
    for args in [&["log"][..], &["ls", "-R", "@latest"], &["help", "areas"], &["--help"]] {
        let mut child = world.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]), "{args:?}");
    }
}

/// The reader of our output does not read on, so the program stands in the middle of its work.
#[test]
fn a_signal_ends_it_with_130() {
    let world = World::with_tree();
    world.write("m/big", &"0123456789abcdef".repeat(1 << 16));
    world.commit("big");
    let mut child = world.command(&["cat", "@latest", "big"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

/// The reader does not read while the work ends and a signal comes: the document was cut off.
#[test]
fn a_signal_after_the_work_cuts_no_document_off() {
    let world = World::with_tree();
    for number in 0..2000 {
        world.write(format!("m/many/a-rather-long-name-of-a-file-so-that-the-document-is-long-{number}"), "");
    }
    world.commit("many");
    for (args, code) in [(&["checkout", "@latest", "--area", "os=r"][..], 0), (&["ls", "-R", "@latest"], 130)] {
        let mut command = world.command(&[&["--json"], args].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut first = vec![0; 1];
        child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        child.stdout.as_mut().unwrap().read_to_end(&mut first).unwrap();
        let text = String::from_utf8(first).unwrap();
        assert!(text.ends_with('\n') && (code > 0 || text.len() > 1 << 16), "{args:?}: {} bytes", text.len());
        text.lines().for_each(|line| drop(serde_json::from_str::<Value>(line).unwrap()));
        assert_eq!(child.wait().unwrap().code(), Some(code), "{args:?}");
    }
}

/// Notes were lines of text before the error's document.
#[test]
fn nothing_but_documents_is_on_stderr() {
    let world = World::committed();
    world.write("c.toml", "[area.os]\nroot = \"r\"\n[area.web]\nroot = \"w\"\n");
    world.write("r/etc/motd", "other\n");
    let output = world.output(&["--json", "--config", "c.toml", "checkout", "@latest"]);
    let text = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    fits("note", &lines[0]);
    fits("error", &lines[1]);
    assert_eq!(lines[0]["message"], format!("snapshot {} has no area `web`: skipped", short(&world)));
}

fn short(world: &World) -> String {
    let log: Value = serde_json::from_slice(&world.output(&["--json", "log"]).stdout).unwrap();
    log["snapshots"][0]["id"].as_str().unwrap()[..12].to_owned()
}

#[test]
fn colours_on_request_only() {
    let world = World::committed();
    let coloured = |args: &[&str]| world.output(args).stdout.contains(&0x1b);
    assert!(!coloured(&["log"]));
    assert!(coloured(&["--color", "always", "log"]));
    assert!(!coloured(&["--color", "always", "--json", "log"]));
}

#[test]
fn errors_as_json() {
    let world = World::new();
    insta::assert_snapshot!(world.run(&["--json", "--store", "nowhere", "log"]), @r#"
    exit 10
    --- stderr
    {"schema":"evenkeel/error/1","kind":"no-store","exit_code":10,"message":"nowhere is not an Evenkeel store","causes":[],"hints":["make one with `evenkeel init STORE`, or name another with --store or EVENKEEL_STORE"]}
    "#);
}

/// They were plain text, which a program that asked for JSON cannot read.
#[test]
fn wrong_arguments_as_json() {
    let world = World::new();
    let command = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        world.tell(&command.args(args).output().unwrap())
    };
    insta::assert_snapshot!(command(&["--json", "checkout"]), @r#"
    exit 2
    --- stderr
    {"schema":"evenkeel/error/1","kind":"usage","exit_code":2,"message":"the following required arguments were not provided: <SNAP>","causes":[],"hints":["Usage: evenkeel checkout <SNAP>","For more information, try '--help'."]}
    "#);
    insta::assert_snapshot!(command(&["chekout", "--json"]), @r#"
    exit 2
    --- stderr
    {"schema":"evenkeel/error/1","kind":"usage","exit_code":2,"message":"unrecognized subcommand 'chekout'","causes":[],"hints":["some similar subcommands exist: 'check', 'checkout'","Usage: evenkeel [OPTIONS] <COMMAND>","For more information, try '--help'."]}
    "#);
    insta::assert_snapshot!(command(&["--json"]), @r#"
    exit 2
    --- stderr
    {"schema":"evenkeel/error/1","kind":"usage","exit_code":2,"message":"no command is given","causes":[],"hints":["`evenkeel --help` lists the commands"]}
    "#);
    assert!(command(&["cat", "--", "--json"]).contains("error: "));
    assert!(command(&["--json", "log", "--help"]).starts_with("exit 0"));
    let output = world.output(&["--json", "log", "--color", "sometimes"]);
    fits("error", &serde_json::from_slice(&output.stderr).unwrap());
}

#[test]
fn progress_as_json_lines() {
    let world = World::with_tree();
    let output = world.output(&["-q", "--progress", "json", "commit", "--area", "os=m"]);
    let lines = String::from_utf8(output.stderr).unwrap();
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    fits("progress", &last);
    assert_eq!(last["finished"], true);
}

/// Every command's document has the fields of its published schema, and no others.
#[test]
fn documents_fit_their_schemas() {
    let world = World::with_tree();
    let document = |args: &[&str]| {
        let stdout = world.output(&[&["--json"], args].concat()).stdout;
        let text = String::from_utf8(stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    fits("init", &document(&["init", "other"])[0]);
    fits("commit", &document(&["commit", "--area", "os=m"])[0]);
    world.write("m/etc/motd", "changed\n");
    world.commit("second");
    fits("log", &document(&["log"])[0]);
    fits("show", &document(&["show"])[0]);
    for line in document(&["ls", "-R", "@latest"]) {
        fits("ls", &line);
    }
    let lines = document(&["diff", "@latest~1", "@latest"]);
    let (stat, changes) = lines.split_last().unwrap();
    fits("diff-stat", stat);
    assert!(!changes.is_empty());
    changes.iter().for_each(|line| fits("diff", line));
    document(&["find", "motd"]).iter().for_each(|line| fits("find", line));
    fits("fetch", &document(&["fetch", "@latest", "--area", "os=r"])[0]);
    let url = crate::test_remote::serve(world.path("st"));
    let far = |command| document(&[command, "@latest", "--area", "os=far", "--store", &url]);
    for command in ["fetch", "checkout"] {
        fits(command, &far(command)[0]);
    }
    record_fits(&document(&["show-record", "1", "--area", "os=far"]));
    fits("checkout", &document(&["checkout", "@latest~1", "--area", "os=r"])[0]);
    world.write("r/etc/motd", "drift\n");
    fits("checkout", &document(&["checkout", "@latest", "--full", "--area", "os=r", "--save-plan", "plan"])[0]);
    saved_plan_fits(&world.read("plan"));
    world.write("r/etc/motd", "drift\n");
    fits("status", &document(&["status", "--area", "os=r"])[0]);
    fits("explain", &document(&["explain", "os:etc/motd", "--area", "os=r"])[0]);
    fits("verify", &document(&["verify", "--area", "os=r"])[0]);
    fits("recover", &document(&["recover", "--area", "os=r"])[0]);
    fits("rollback", &document(&["rollback", "--area", "os=r"])[0]);
    fits("history", &document(&["history", "--area", "os=r"])[0]);
    for number in ["1", "2"] {
        record_fits(&document(&["show-record", number, "--area", "os=r"]));
    }
    fits("check", &document(&["check"])[0]);
    fits("bundle", &document(&["bundle", "create", "@latest", "--base", "@latest~1", "-o", "one.bundle"])[0]);
    fits("copy", &document(&["copy", "--to", "copied", "@latest"])[0]);
    let failed = world.output(&["--json", "show", "deadbeef"]).stderr;
    fits("error", &serde_json::from_slice(&failed).unwrap());
}

/// Every line of a saved plan is one of the schema's parts, and it has all of them but `kept`.
fn saved_plan_fits(plan: &str) {
    let parts = plan.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        let keys = ["schema", "area", "action", "kept", "end"];
        let part = keys.iter().zip(["header", "area", "change", "kept", "end"]).find(|(key, _)| !line[key].is_null());
        let (_, part) = part.unwrap_or_else(|| panic!("{line}"));
        let schema = schema("plan");
        check(&schema, &schema["$defs"][part], &line, part);
        part
    });
    let mut parts: Vec<&str> = parts.collect();
    parts.dedup();
    assert_eq!(parts, ["header", "area", "change", "end"]);
}

/// Every line of a record is one of the schema's parts, and it has the first and the last.
fn record_fits(lines: &[Value]) {
    let schema = schema("record");
    let parts: Vec<&str> = lines.iter().map(|line| line["line"].as_str().unwrap()).collect();
    for (line, part) in lines.iter().zip(&parts) {
        check(&schema, &schema["$defs"][part], line, part);
    }
    assert_eq!((parts[0], &parts[parts.len() - 2..]), ("header", &["end", "seal"][..]));
    assert!(parts.contains(&"change"), "{parts:?}");
}

fn schema(name: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/reference/schemas/{name}.json"));
    serde_json::from_slice(&evenkeel_store::fsio::read_capped(&path, 1 << 20).unwrap()).unwrap()
}

/// Checks a document against `docs/reference/schemas/<name>.json`: types, required and known properties, at any depth.
pub fn fits(name: &str, document: &Value) {
    let schema = schema(name);
    assert_eq!(document["schema"], schema["properties"]["schema"]["const"], "{name}");
    check(&schema, &schema, document, name);
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.trim_start_matches('#')).unwrap();
        return check(root, target, value, at);
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = types.is_empty() || types.contains(&found) || (found == "integer" && types.contains(&"number"));
    assert!(fits, "{at}: {found} is none of {types:?}");
    if let (Value::String(text), Some("time" | "mtime" | "ctime" | "began" | "ended")) = (value, at.rsplit('.').next())
    {
        assert!(text.contains('T') && text.ends_with('Z'), "{at}: {text} is not RFC 3339 in UTC");
    }
    if let Value::Array(items) = value {
        items.iter().for_each(|item| check(root, &schema["items"], item, at));
    }
    if let Value::Object(fields) = value {
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            assert!(fields.contains_key(required), "{at}: {required} is missing");
        }
        for (name, field) in fields {
            let below = match &schema["properties"][name] {
                Value::Null if schema["additionalProperties"].is_object() => &schema["additionalProperties"],
                Value::Null => panic!("{at}: {name} is not in the schema"),
                known => known,
            };
            check(root, below, field, &format!("{at}.{name}"));
        }
    }
}
