//! `s3_conformance [--in-process]`: whether a server keeps the contract of object stores. Its endpoint and credentials are
//! those of the environment (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, ...), its bucket is `MITHRIL_S3_BUCKET`, which is
//! not created.
//!
//! Prints a line for each part of the suite, and at the end one line for a table. Whether conditions are heeded, and
//! `a/b` is listed beside `a`, is probed first: where not, the parts about that are not run, and the line says so. Fails if a part fails.

use std::process::ExitCode;

use mithril_engine::object::probe::{probe, probe_uploads};
use mithril_engine::object::s3::{S3Config, S3Store};
use mithril_tests::conformance::{Expect, Suite, parts};
use mithril_tests::s3::S3Server;

#[tokio::main]
async fn main() -> ExitCode {
    let server = std::env::args().any(|argument| argument == "--in-process").then(S3Server::start);
    let config = match &server {
        Some(server) => server.config(),
        None => match std::env::var("MITHRIL_S3_BUCKET") {
            Ok(bucket) => S3Config::new(bucket),
            Err(_) => {
                eprintln!("set MITHRIL_S3_BUCKET to the bucket, and AWS_ENDPOINT_URL to the server");
                return ExitCode::from(2);
            }
        },
    };
    match check(config).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            println!("TABLE | ? | ? | ? | ? | ? | ? | {error}");
            ExitCode::from(2)
        }
    }
}

async fn check(config: S3Config) -> Result<bool, Box<dyn std::error::Error>> {
    let store = S3Store::connect(config).await?;
    let found = probe(&store, "").await?;
    let uploads = probe_uploads(&store, "").await?;
    let expect =
        Expect { conditions: found.conditions(), uploads: uploads.conditions(), nested: found.lists_below };
    println!("{found:?}, {uploads:?}");
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, part) in parts(expect) {
        let store = store.clone();
        let run = tokio::spawn(async move {
            let suite = Suite::new(&store);
            part(&suite).await;
            suite.clean(name).await;
        });
        // What failed was said by the panic.
        if run.await.is_ok() {
            println!("ok      {name}");
            passed += 1;
        } else {
            println!("FAILED  {name}");
            failed.push(name);
        }
    }
    let left_out = parts(Expect::ALL).len() - passed - failed.len();
    let heeded = |heeded: bool| if heeded { "yes" } else { "NO" };
    println!(
        "TABLE | {} | {} | {} | {} | {} | {passed} passed, {left_out} left out | {}",
        heeded(found.put_absent),
        heeded(found.put_matches),
        heeded(uploads.absent),
        heeded(uploads.matches),
        heeded(found.lists_below),
        if failed.is_empty() { "none".to_owned() } else { failed.join(", ") },
    );
    Ok(failed.is_empty())
}
