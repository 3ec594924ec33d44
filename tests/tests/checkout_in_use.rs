// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What else is at work: programs that use the files which are replaced, and package managers.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use evenkeel_store::checkout::{AreaTarget, CheckoutOptions, Mode, checkout};
use evenkeel_store::{Error, Progress};
use evenkeel_tests::Fixture;
use evenkeel_tests::fixture::AREA;
use evenkeel_tests::place::Place;

/// A process that ends with its scope.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for(path: &Path) {
    while !path.exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// FAULTS item 45: a running program is replaced; new runs use the new file, and the report lists who uses the old one.
#[test]
fn a_running_program_is_replaced_and_its_users_are_listed() {
    let fixture = Fixture::small();
    let tree = &fixture.tree;
    std::fs::create_dir_all(tree.path("bin")).unwrap();
    std::fs::copy("/bin/sleep", tree.path("bin/service")).unwrap();
    tree.file("data", "one").file("gone/log", "l").file("same", "s");
    let first = fixture.commit_new();
    tree.remove("bin/service").file("bin/service", "#!/bin/sh\necho new\n").mode("bin/service", 0o755);
    tree.file("data", "two!").remove("gone");
    let second = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    let open = |name: &str| std::fs::File::open(place.root.join(name)).unwrap();
    let start = |program: &Path| {
        let mut command = Command::new(program);
        command.arg("100").stdin(open("data")).stderr(open("same")).stdout(open("gone/log"));
        Running(command.spawn().unwrap())
    };
    let service = start(&place.root.join("bin/service"));
    let report = place.checkout(&second, Mode::Full);
    let users = |report: &evenkeel_store::in_use::InUse| {
        let one = |using: &evenkeel_store::in_use::Using| {
            let paths: Vec<String> = using.paths.iter().map(ToString::to_string).collect();
            (using.pid, using.command.clone(), paths.join(" "))
        };
        report.processes.iter().map(one).collect::<Vec<_>>()
    };
    let expected = (service.0.id(), "service".to_owned(), "bin/service data gone/log".to_owned());
    assert_eq!(users(&report.areas[0].in_use), [expected], "and not the file that stayed");
    let new = Command::new(place.root.join("bin/service")).output().unwrap();
    assert_eq!(new.stdout, b"new\n", "new runs use the new file");
    drop(service);
    // The other way round: who uses what the rollback displaces.
    let reader = Running(Command::new("sleep").arg("100").stdin(open("data")).spawn().unwrap());
    let done = place.rollback().unwrap();
    assert_eq!(users(&done.in_use), [(reader.0.id(), "sleep".to_owned(), "data".to_owned())]);
    let nothing_gave_way = place.checkout(&first, Mode::Full);
    assert_eq!(users(&nothing_gave_way.areas[0].in_use), []);
}

/// A package manager, and a package of it that takes its time: it says that it has begun, and ends when it may.
struct Manager {
    name: &'static str,
    /// Where it keeps what it knows, in the area.
    database: &'static str,
    make: fn(&Path) -> PathBuf,
    install: fn(&Path, &Path) -> Command,
}

const MANAGERS: [Manager; 2] = [
    Manager { name: "dpkg", database: "var/lib/dpkg", make: slow_deb, install: dpkg },
    Manager { name: "rpm", database: "var/lib/rpm", make: slow_rpm, install: rpm },
];

fn slow_deb(dir: &Path) -> PathBuf {
    let (source, package) = (dir.join("package"), dir.join("slow.deb"));
    std::fs::create_dir_all(source.join("DEBIAN")).unwrap();
    std::fs::create_dir_all(source.join("opt")).unwrap();
    std::fs::write(source.join("opt/delivered"), "by its package").unwrap();
    let control = "Package: slow\nVersion: 1\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: x\n";
    std::fs::write(source.join("DEBIAN/control"), control).unwrap();
    let script =
        "#!/bin/sh\nlog=$DPKG_ROOT/var/log\ntouch \"$log/begun\"\nuntil [ -e \"$log/go\" ]; do sleep 0.02; done\n";
    std::fs::write(source.join("DEBIAN/preinst"), script).unwrap();
    let modes = Command::new("chmod").args(["-R", "0755"]).arg(&source).status().unwrap();
    assert!(modes.success());
    let built = Command::new("dpkg-deb").arg("--build").args([&source, &package]).stdout(Stdio::null()).status();
    assert!(built.unwrap().success());
    package
}

fn dpkg(root: &Path, package: &Path) -> Command {
    let mut command = Command::new("dpkg");
    command.arg(format!("--root={}", root.display())).args(["--force-script-chrootless", "--install"]).arg(package);
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C").stdout(Stdio::null());
    command
}

fn slow_rpm(dir: &Path) -> PathBuf {
    let (spec, built) = (dir.join("slow.spec"), dir.join("rpmbuild"));
    let text = "Name: slow\nVersion: 1\nRelease: 1\nSummary: x\nLicense: x\nBuildArch: noarch\n\
        %description\nx\n\
        %pre -p <lua>\nio.open('/var/log/begun', 'w'):close()\n\
        while not io.open('/var/log/go') do posix.sleep(1) end\n\
        %install\nmkdir -p %{buildroot}/opt\nprintf 'by its package' > %{buildroot}/opt/delivered\n\
        %files\n/opt/delivered\n";
    std::fs::write(&spec, text).unwrap();
    let top = format!("_topdir {}", built.display());
    let done = Command::new("rpmbuild").args(["-bb", "--quiet", "--define", &top]).arg(&spec).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    built.join("RPMS/noarch/slow-1-1.noarch.rpm")
}

fn rpm(root: &Path, package: &Path) -> Command {
    let mut command = Command::new("rpm");
    command.arg("--root").arg(root).args(["--dbpath", "/var/lib/rpm", "--force", "--install"]).arg(package);
    // On Debian it warns of itself.
    command.env("LC_ALL", "C").stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
#[ignore = "root: runs dpkg and rpm"]
fn root_package_managers_and_a_checkout_wait_for_each_other() {
    MANAGERS.iter().for_each(one_waits_for_the_other);
}

fn one_waits_for_the_other(manager: &'static Manager) {
    let fixture = Fixture::small();
    fixture.tree.file("usr/bin/tool", "one").file("usr/lib/lib", "one");
    let first = fixture.commit_new();
    fixture.tree.file("usr/bin/tool", "two").file("usr/lib/lib", "two").file("opt/delivered", "by the master");
    let second = fixture.commit_new();
    let mut place = Place::new(&fixture, "server");
    place.exclude = vec![format!("/{}", manager.database), "/var/log".into()];
    place.checkout_exactly(&first);
    place.tree().dir(manager.database).dir("var/log");
    if manager.name == "dpkg" {
        for dir in ["info", "updates", "triggers"] {
            place.tree().dir(format!("var/lib/dpkg/{dir}"));
        }
        place.tree().file("var/lib/dpkg/status", "").file("var/lib/dpkg/available", "");
    }
    let package = (manager.make)(fixture.dir());
    let running = Running((manager.install)(&place.root, &package).spawn().unwrap());
    wait_for(&place.root.join("var/log/begun"));
    let at_work = |error: Error| match error {
        Error::PackagesLocked { program, holder, .. } => (program, holder),
        other => panic!("{other}"),
    };
    let it_is_at_work = (manager.name, Some(running.0.id()));
    let refused = place.try_checkout(&second, |options| options.areas[0].wait_packages_s = 0).unwrap_err();
    assert_eq!(at_work(refused), it_is_at_work);
    assert_eq!(std::fs::read(place.root.join("usr/bin/tool")).unwrap(), b"one", "nothing was changed");
    assert_eq!(place.status().areas[0].interrupted, None);
    let area = AreaTarget { wait_packages_s: 0, ..AreaTarget::new(AREA, &place.root) };
    let back = evenkeel_store::checkout::BackOptions::new(&place.state);
    let refused = evenkeel_store::checkout::rollback(&area, &back, &Progress::default()).unwrap_err();
    assert_eq!(at_work(refused), it_is_at_work);

    // One that waits sees what it has brought meanwhile.
    let go = place.root.join("var/log/go");
    let options = |progress: &Progress| {
        let mut options = CheckoutOptions::new(second, place.state.clone());
        options.areas = vec![AreaTarget { exclude: place.exclude.clone(), ..AreaTarget::new(AREA, &place.root) }];
        options.mode = Some(Mode::Full);
        checkout(place.store(), &options, progress).unwrap()
    };
    let waiting = Progress::watched(move |phase| {
        if phase == format!("waiting for {}", manager.name) {
            std::fs::write(&go, "").unwrap();
        }
    });
    let report = options(&waiting);
    let delivered = report.areas[0].changes.iter().find(|change| change.path.as_bytes() == b"opt/delivered").unwrap();
    assert_eq!(delivered.action.name(), "replace", "it was planned again");
    drop(running);
    place.rollback().unwrap();

    // And it does not begin while a checkout switches.
    let (root, install) = (place.root.clone(), manager.install);
    let switching = Progress::watched(move |phase| {
        if phase == "switching" || phase == "recording" {
            let refused = install(&root, &package).stderr(Stdio::piped()).output().unwrap();
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(!refused.status.success() && said.contains("lock"), "{phase}: {said}");
        }
    });
    options(&switching);
    assert_eq!(std::fs::read(place.root.join("opt/delivered")).unwrap(), b"by the master");
}
