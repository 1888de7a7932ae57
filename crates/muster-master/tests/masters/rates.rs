//! How many calls a principal may make.

use crate::{http, support::Masters};
use std::num::NonZeroU32;

const JSON: [(&str, &str); 2] = [("Content-Type", "application/json"), ("Accept", "application/json")];

async fn subscribe(address: &str, principal: &str) -> http::Answer {
    let info = format!(r#"{{"user":"u","name":"n","principal":"{principal}"}}"#);
    let call = format!(r#"{{"type":"SUBSCRIBE","subscribe":{{"framework_info":{info}}}}}"#);
    http::send(address, "POST", "/api/v1/scheduler", &JSON, call.as_bytes()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_calls_too_often_is_told_when_it_may_again_and_others_are_not() {
    let masters = Masters::configured(1, |config| {
        config.api.calls_per_second.insert("often".into(), NonZeroU32::MIN);
    })
    .await;
    let address = masters.address(&masters.serving().await);
    let mut refused = None;
    for _ in 0..50 {
        let answer = subscribe(&address, "often").await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
        assert_eq!(answer.status, 200);
    }
    let refused = refused.expect("of fifty calls in a row one is too many");
    assert_eq!(refused.headers["retry-after"], "1");
    let text = refused.text().await;
    assert!(text.contains("\"often\"") && text.contains("api.calls-per-second"), "{text}");
    for _ in 0..10 {
        assert_eq!(subscribe(&address, "other").await.status, 200, "who is not named has no limit");
    }
}
