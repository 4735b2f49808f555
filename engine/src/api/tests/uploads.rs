use std::net::SocketAddr;

use axum::{body::Body, http::Method};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::world::{Got, World, request};
use crate::api::server;

pub(super) async fn upload(world: &World, list: &str, query: &str, body: impl Into<Body>) -> Got {
    let request = request(Method::POST, &format!("/v1/lists/{list}/imports{query}"), &world.key)
        .header("content-type", "text/csv; charset=utf-8");
    world.send(request.body(body.into()).unwrap()).await
}

#[tokio::test]
async fn an_upload_answers_when_it_is_done() {
    let world = World::new().await;
    let list = world.list("people").await;
    let list = list.as_str().unwrap();
    let got = upload(&world, list, "?email=Mail&field.city=Town&default_country=FR", "Mail,Town\na@b.eu,X\n").await;
    assert_eq!(got.status, 201);
    let value = got.good();
    assert_eq!((&value["state"], &value["totals"]["rows"]), (&json!("completed"), &json!(1)));
    assert_eq!(value["totals"]["added"], 1);
    assert_eq!(world.get(got.headers["location"].to_str().unwrap()).await.good()["id"], value["id"]);
    assert_eq!(value["report"]["fields"], json!(["city"]));
    let list = world.get(&format!("/v1/lists/{list}")).await.good();
    assert_eq!((&list["contacts"], &list["fields"]), (&json!(1), &json!(["city"])));
}

#[tokio::test]
async fn an_upload_that_is_refused_or_too_large_leaves_the_list_free() {
    let world = World::new().await;
    let list = world.list("people").await;
    let list = list.as_str().unwrap();
    assert_eq!(upload(&world, list, "", "a\0b").await.problem(), (422, "import-refused".to_owned()));
    let large = "x".repeat((1 << 20) + 1);
    assert_eq!(upload(&world, list, "", large).await.problem(), (413, "too-large".to_owned()));
    let chunks = futures_util::stream::iter([Ok("email\n"), Err(std::io::Error::other("gone"))]);
    let cut = upload(&world, list, "", Body::from_stream(chunks)).await;
    assert_eq!(cut.problem(), (400, "malformed-request".to_owned()));
    assert_eq!(upload(&world, list, "", "email\n").await.status, 201);
}

#[tokio::test]
async fn a_file_without_a_header_is_refused_without_repeating_its_first_row() {
    let world = World::new().await;
    let list = world.list("people").await;
    let list = list.as_str().unwrap();
    for query in ["", "?email=Mail"] {
        let rows = "anna.canary@example.org,Canary\nb@example.org,B\n";
        let got = upload(&world, list, query, rows).await;
        assert_eq!(got.problem(), (422, "import-refused".to_owned()), "{}", got.text);
        assert!(!got.text.to_lowercase().contains("canary"), "{}", got.text);
    }
}

#[tokio::test]
async fn a_mapping_is_checked_before_anything_is_read() {
    let world = World::new().await;
    let list = world.list("people").await;
    let list = list.as_str().unwrap();
    for query in ["?emial=Mail", "?default_country=France", "?email=", "?email=a&email=b"] {
        assert_eq!(upload(&world, list, query, "email\n").await.status, 422, "{query}");
    }
    let with_header = |text: &str, query: &str| {
        let request = request(Method::POST, &format!("/v1/lists/{list}/imports{query}"), &world.key)
            .header("content-type", "text/csv")
            .header("dispatch-mapping", text);
        world.send(request.body(Body::from("Mail,Town\n")).unwrap())
    };
    assert_eq!(with_header(r#"{"email":"Mail","fields":{"city":"Town"}}"#, "").await.status, 201);
    assert_eq!(with_header(r#"{"emial":"Mail"}"#, "").await.status, 422);
    assert_eq!(with_header("{", "").await.status, 422);
    assert_eq!(with_header("{}", "?email=Mail").await.status, 422);
    let json_body = world.post(&format!("/v1/lists/{list}/imports"), &json!({})).await;
    assert_eq!(json_body.status, 415);
}

#[tokio::test]
async fn a_client_that_hangs_up_in_the_middle_leaves_nothing_behind() {
    let world = World::new().await;
    let list = world.list("people").await;
    let list = list.as_str().unwrap();
    let listener = server::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server::serve(listener, world.router.clone(), async {
        let _ = stopped.await;
    }));

    let mut client = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/lists/{list}/imports HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: text/csv\r\n\
         Content-Length: 1000\r\n\r\nemail\nhalf@",
        world.key
    );
    client.write_all(head.as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = String::new();
    let _ = client.read_to_string(&mut answer).await;
    drop(client);
    // The server ends only when its calls have; the roll-back may outlive the connection, so the list tells.
    stop.send(()).unwrap();
    serving.await.unwrap();
    let mut got = upload(&world, list, "", "email\n").await;
    while got.status == 409 {
        tokio::task::yield_now().await;
        got = upload(&world, list, "", "email\n").await;
    }
    assert_eq!(got.status, 201, "{}", got.text);
    assert_eq!(got.good()["totals"]["rows"], 0);
}
