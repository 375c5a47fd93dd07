//! The answers to what is not even a request: hyper says no by itself, with a
//! status and nothing else. Here its words become those of every other answer.

use http::StatusCode;
use machina_core::Error;
use uuid::Uuid;

use super::failure::{Failure, Part};

/// What is to be written instead of hyper's `head`, if that says no.
pub(super) fn turned_down(head: &[u8]) -> Option<Vec<u8>> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let number = line.strip_prefix(b"HTTP/1.1 ").or_else(|| line.strip_prefix(b"HTTP/1.0 "))?.get(..3)?;
    let failure = failure(StatusCode::from_bytes(number).ok()?)?;
    let id = Uuid::now_v7().to_string();
    let (status, document) = failure.document(&id);
    let mut answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {}\r\ncontent-length: {}\r\ncache-control: no-store\r\nx-request-id: {id}\r\n\
         connection: close\r\n\r\n",
        crate::problem::MEDIA_TYPE,
        document.len(),
    )
    .into_bytes();
    answer.extend_from_slice(&document);
    Some(answer)
}

fn failure(status: StatusCode) -> Option<Failure> {
    let (part, message) = match status {
        StatusCode::BAD_REQUEST => (Part::Request, "this is no request of HTTP/1.1"),
        StatusCode::URI_TOO_LONG => (Part::Address, "the address of the request is too long"),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => (
            Part::Head,
            "the request line and the headers are longer than `server.header_bytes_max`, or there are more than 100",
        ),
        _ => return None,
    };
    Some(Failure::of(part)(Error::invalid(message)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_of_hyper_becomes_a_problem() {
        for status in ["400 Bad Request", "414 URI Too Long", "431 Request Header Fields Too Large"] {
            let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            let answer = String::from_utf8(turned_down(head.as_bytes()).unwrap()).unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
            let problem: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(problem["status"].to_string(), status[..3]);
        }
    }

    #[test]
    fn nothing_else_is_touched() {
        for head in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 404 Not Found\r\n", "HTTP/1.1 100 Continue\r\n\r\n", "GET /"]
        {
            assert_eq!(turned_down(head.as_bytes()), None, "{head}");
        }
    }
}
