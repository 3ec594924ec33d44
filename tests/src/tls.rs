// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Certificates of authorities that live as long as a test.

use std::path::Path;
use std::process::{Command, Stdio};

/// Makes the authority `name` in `dir`: `name.pem` and `name.key`.
pub fn authority(dir: &Path, name: &str) {
    openssl(
        dir,
        &format!("req -x509 -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.pem -days 9 -subj /CN={name}"),
    );
}

/// Makes a certificate of an authority, for what `alternative` says, as `IP:127.0.0.1`.
pub fn certificate(dir: &Path, authority: &str, name: &str, alternative: &str) {
    std::fs::write(dir.join("ext"), format!("subjectAltName={alternative}\n")).unwrap();
    openssl(dir, &format!("req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"));
    openssl(
        dir,
        &format!(
            "x509 -req -in {name}.csr -CA {authority}.pem -CAkey {authority}.key -days 9 -extfile ext -out {name}.pem"
        ),
    );
}

fn openssl(dir: &Path, args: &str) {
    let done = Command::new("openssl").args(args.split(' ')).current_dir(dir).stderr(Stdio::null()).status();
    assert!(done.expect("openssl is installed (package: openssl)").success(), "openssl {args}");
}
