//! Uploads whose process dies.

use dispatch_schemas::api::lists::NewList;
use dispatch_tests::support::{given_services::GivenServices, stage::Account, wait};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::fleet::{Fleet, Ground, WITHIN};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_whose_process_died_is_removed_by_another_that_runs() {
    let given = GivenServices::new().await;
    let ground = Ground::new(&[Account::new("sendgrid")], &given.ledger_url(None), &given.queue_url());
    let mut fleet = Fleet::at_work(ground, &["api", "api,scheduler"]).await;
    let new = NewList { name: "Customers".to_owned(), source: fleet.platform.source };
    let list = fleet.opened.ledger.create_list(fleet.platform.tenant, &new, None).await.unwrap().value.id;

    // Half a file.
    let mut upload = TcpStream::connect(fleet.process(0).address()).await.unwrap();
    let head = format!(
        "POST /v1/lists/{list}/imports HTTP/1.1\r\nhost: engine\r\nauthorization: Bearer {}\r\n\
         content-type: text/csv\r\ncontent-length: 1000000\r\n\r\nemail\nanna@people.example\n",
        fleet.key()
    );
    upload.write_all(head.as_bytes()).await.unwrap();
    let uploads = "SELECT count(*) FROM import WHERE state = 'running'";
    wait::until("the upload has begun", WITHIN, async || (fleet.window.number(uploads).await == 1).then_some(())).await;
    fleet.kill(0);
    // As if it had been a while ago.
    let aged = "WITH aged AS (UPDATE import SET seen_at_ms = 0 RETURNING 1) SELECT count(*) FROM aged";
    assert_eq!(fleet.window.number(aged).await, 1);

    let removed = "SELECT count(*) FROM import WHERE state = 'failed'";
    wait::until("it is removed", WITHIN, async || (fleet.window.number(removed).await == 1).then_some(())).await;
    let again = fleet.opened.ledger.begin_import(fleet.platform.tenant, list).await.unwrap();
    fleet.opened.ledger.roll_back_import(again, "the test is over").await.unwrap();
    fleet.end().await;
}
