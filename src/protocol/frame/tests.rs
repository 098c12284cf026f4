//! Decoding whole, in pieces and damaged; encoding; limits.

use super::*;

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
const ALL: [Framing; 3] = [Framing::Binary, Framing::Headers, Framing::Lines];

fn encoded(framing: Framing, texts: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for text in texts {
        framing.write(&mut out, &[text]).unwrap();
    }
    out
}

/// All that comes out, with `!` before an error.
fn drained(decoder: &mut Decoder) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(message) = decoder.message() {
        all.push(match message {
            Ok(Message::Json(json)) => String::from_utf8_lossy(json).into_owned(),
            Ok(Message::Stream { id, bytes }) => format!("{id}:{}", String::from_utf8_lossy(bytes)),
            Err(e) => format!("!{e}"),
        });
    }
    all
}

fn decoded(bytes: &[u8]) -> Vec<String> {
    let mut decoder = Decoder::new();
    decoder.feed(bytes);
    drained(&mut decoder)
}

#[test]
fn every_framing_survives_the_trip_in_any_pieces() {
    for framing in ALL {
        let bytes = encoded(framing, &[PING, "[]", "{\n}", PING]);
        for step in [1, 2, 3, 7, 1000] {
            let (mut decoder, mut got) = (Decoder::new(), Vec::new());
            for piece in bytes.chunks(step) {
                decoder.feed(piece);
                got.extend(drained(&mut decoder));
            }
            let third = if framing == Framing::Lines { "{ }" } else { "{\n}" };
            assert_eq!(got, [PING, "[]", third, PING], "{framing:?} {step}");
            assert_eq!(decoder.framing(), Some(framing));
            assert_eq!(decoder.held(), 0);
        }
    }
}

#[test]
fn the_first_byte_decides() {
    for (first, framing) in [
        (0, Some(Framing::Binary)),
        (1, Some(Framing::Binary)),
        (b'C', Some(Framing::Headers)),
        (b'c', Some(Framing::Headers)),
        (b'{', Some(Framing::Lines)),
        (b'[', Some(Framing::Lines)),
        (b'\n', Some(Framing::Lines)),
        (b' ', Some(Framing::Lines)),
        (2, None),
        (b'G', None),
        (b'"', None),
        (0xff, None),
    ] {
        let mut decoder = Decoder::new();
        decoder.feed(&[first]);
        let error = decoder.message().is_some_and(|m| m.is_err());
        assert_eq!((decoder.framing(), error, decoder.failed()), (framing, framing.is_none(), framing.is_none()));
    }
}

#[test]
fn an_error_comes_once_and_nothing_after_it() {
    let mut decoder = Decoder::new();
    decoder.feed(b"GET / HTTP/1.1\r\n");
    assert_eq!(drained(&mut decoder), ["!a connection cannot begin with 'G'"]);
    decoder.feed(PING.as_bytes());
    decoder.feed(b"\n");
    assert_eq!(drained(&mut decoder), [""; 0]);
    assert_eq!(decoder.held(), 0);
}

#[test]
fn stream_frames_carry_their_id() {
    let mut out = Vec::new();
    Framing::Binary.stream_data(&mut out, StreamId(0x0102_0304), b"a\xffb");
    assert_eq!(out, b"\x01\x00\x00\x07\x01\x02\x03\x04a\xffb");
    let mut decoder = Decoder::new();
    decoder.feed(&out);
    let want = Message::Stream { id: StreamId(0x0102_0304), bytes: b"a\xffb" };
    assert_eq!(decoder.message(), Some(Ok(want)));
    assert_eq!(decoded(b"\x01\x00\x00\x03abc"), ["!a stream frame without its stream id"]);
    assert_eq!(decoded(b"\x00\x00\x00\x01x\x02"), ["x", "!a frame of unknown kind 2"]);
}

#[test]
fn long_streams_are_cut_into_frames() {
    let long = vec![b'x'; FRAME_MAX + 10];
    let mut out = Vec::new();
    Framing::Binary.stream_data(&mut out, StreamId(7), &long);
    let (mut decoder, mut lengths) = (Decoder::new(), Vec::new());
    decoder.feed(&out);
    while let Some(Ok(Message::Stream { id: StreamId(7), bytes })) = decoder.message() {
        lengths.push(bytes.len());
    }
    assert_eq!(lengths, [FRAME_MAX - 4, 14]);
}

#[test]
fn text_framings_send_text_or_base64() {
    let mut out = Vec::new();
    Framing::Lines.stream_data(&mut out, StreamId(7), "é\"\n".as_bytes());
    Framing::Lines.stream_data(&mut out, StreamId(7), b"\xc3");
    Framing::Lines.stream_data(&mut out, StreamId(7), b"");
    Framing::Lines.stream_end(&mut out, StreamId(7), "eof");
    let lines: Vec<serde_json::Value> = decoded(&out).iter().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["method"], "stream.data");
    assert_eq!(lines[0]["params"], serde_json::json!({"id": 7, "text": "é\"\n"}));
    assert_eq!(base64::decode(lines[1]["params"]["base64"].as_str().unwrap()).unwrap(), b"\xc3");
    assert_eq!(lines[2]["params"], serde_json::json!({"id": 7, "reason": "eof"}));
}

#[test]
fn headers_are_read_leniently_but_not_blindly() {
    let ok = |head: &str| decoded(format!("{head}{PING}").as_bytes());
    let n = PING.len();
    assert_eq!(ok(&format!("Content-Length: {n}\r\n\r\n")), [PING]);
    let typed =
        format!("content-type: application/vscode-jsonrpc; charset=utf-8\r\nCONTENT-LENGTH:{n}\r\nX-Other: 1\r\n\r\n");
    assert_eq!(ok(&typed), [PING]);
    assert_eq!(ok(&format!("Content-Length: {n}\n\n")), [PING]);
    for bad in ["Content-Length: -1\r\n\r\n", "Content-Length: 1, 2\r\n\r\n", "Content-Length:\r\n\r\n"] {
        assert_eq!(ok(bad), ["!a Content-Length that is not one number"], "{bad}");
    }
    let two = "Content-Length: 1\r\nContent-Length: 2\r\n\r\n";
    assert_eq!(ok(two), ["!a Content-Length that is not one number"]);
    assert_eq!(ok("Content-Type: x\r\n\r\n"), ["!headers without a Content-Length"]);
    assert_eq!(ok("CONNECT host HTTP/1.1\r\n\r\n"), ["!a header line without a colon"]);
}

#[test]
fn endless_headers_are_refused() {
    let mut decoder = Decoder::new();
    decoder.feed(b"C");
    for _ in 0..HEADERS_MAX {
        decoder.feed(b"x");
    }
    assert_eq!(drained(&mut decoder), [format!("!headers of more than {HEADERS_MAX} bytes")]);
}

#[test]
fn a_length_over_the_limit_is_refused_before_memory_is_reserved() {
    let over = FRAME_MAX + 1;
    let want = format!("!a message is longer than {FRAME_MAX} bytes");
    let mut decoder = Decoder::new();
    decoder.feed(format!("Content-Length: {over}\r\n\r\n").as_bytes());
    assert_eq!(drained(&mut decoder), [&*want]);
    assert_eq!(decoded(b"Content-Length: 99999999999999999999999999\r\n\r\n"), [want]);
    assert_eq!(decoded(b"Content-Length: 0\r\n\r\n"), [""], "an empty message is one");
    let mut small = Decoder::with_limit(100);
    small.feed(b"\x00\x00\x00\x65");
    assert_eq!(drained(&mut small), ["!a message is longer than 100 bytes"]);

    let mut largest = Decoder::new();
    largest.feed(b"\x00\xff\xff\xff");
    assert!(largest.message().is_none() && !largest.failed());
    assert!(largest.buf.capacity() < 100, "an announced length reserves nothing");
}

#[test]
fn a_line_over_the_limit_is_refused_while_it_arrives() {
    let mut decoder = Decoder::with_limit(10_000);
    let mut fed = 0;
    while !decoder.failed() {
        decoder.feed(&[b'['; 1000]);
        fed += 1000;
        drained(&mut decoder);
        assert!(fed <= 11_000);
    }
    assert_eq!(decoder.held(), 0);
    let exact = "[".repeat(10_000);
    let mut decoder = Decoder::with_limit(10_000);
    decoder.feed(exact.as_bytes());
    decoder.feed(b"\n");
    assert_eq!(drained(&mut decoder), [exact]);
}

#[test]
fn the_end_completes_a_line_and_breaks_a_frame() {
    let mut decoder = Decoder::new();
    decoder.feed(b" \n\r\n  {\"a\":1}\n\n{}");
    assert_eq!(drained(&mut decoder), ["  {\"a\":1}"]);
    decoder.end();
    assert_eq!(drained(&mut decoder), ["{}"]);
    for partial in [&b"\x00\x00"[..], b"\x00\x00\x00\x02x", b"Content-Length: 4", b"Content-Length: 4\r\n\r\n{}"] {
        let mut decoder = Decoder::new();
        decoder.feed(partial);
        assert_eq!(drained(&mut decoder), [""; 0]);
        decoder.end();
        assert_eq!(drained(&mut decoder), ["!the connection ended within a message"]);
    }
}

#[test]
fn memory_of_a_long_message_is_given_back() {
    for framing in ALL {
        let long = format!("[{}]", "1,".repeat(500_000));
        let mut decoder = Decoder::new();
        decoder.feed(&encoded(framing, &[&long]));
        assert_eq!(drained(&mut decoder), [long]);
        assert!(decoder.buf.capacity() <= KEEP, "{framing:?}");
    }
}

#[test]
fn what_does_not_fit_is_not_written() {
    let long = "x".repeat(FRAME_MAX + 1);
    for framing in ALL {
        let mut out = Vec::new();
        assert_eq!(framing.write(&mut out, &[&long]), Err(TooLong));
        assert!(out.is_empty());
    }
}

#[test]
fn fuzz_with_fixed_seeds() {
    let mut corpus: Vec<Vec<u8>> = ALL.iter().map(|f| encoded(*f, &[PING, "[1,\n2]", "{}"])).collect();
    corpus.push(b"\x01\x00\x00\x06\x00\x00\x00\x07hi\x01\x00\x00\x04\x00\x00\x00\x01".to_vec());
    corpus.push(vec![b'['; 3000]);
    crate::protocol::each_mutation(&corpus, 20_000, fuzz);
}
