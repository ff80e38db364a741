//! Headers that no Rust client can send and any other can.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use headroom::stream::alerts::read_from;
use headroom::stream::record::{UNREADABLE_NAME, for_each_header};

use crate::kafka::scene;

/// Long enough for any machine; a test that waits for so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_header_whose_name_is_not_utf8_is_passed_over_and_the_others_are_there() {
    let options = scene();
    let headers: [(&[u8], &[u8]); 3] = [(b"one", b"1"), (b"\xff\xfe", b"2"), (b"three", b"\xff")];
    produce_raw(&options.bootstrap_servers, &options.alerts_topic, &headers);
    let mut seen = Vec::new();
    read_from(&options, &[], |message| {
        for_each_header(message, |name, value| seen.push((name.to_owned(), value.map(<[u8]>::to_vec))));
    })
    .unwrap();
    let expected = [("one", Some(&b"1"[..])), (UNREADABLE_NAME, None), ("three", Some(&b"\xff"[..]))];
    assert_eq!(seen, expected.map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))));
}

/// Produces one record to partition 0 by Kafka's protocol, bytes as they are.
fn produce_raw(server: &str, topic: &str, headers: &[(&[u8], &[u8])]) {
    // A record: attributes, timestamp and offset deltas, no key, the value, the headers.
    let mut record = vec![0, 0, 0];
    varint(&mut record, -1);
    bytes(&mut record, b"value");
    varint(&mut record, headers.len());
    for (name, value) in headers {
        bytes(&mut record, name);
        bytes(&mut record, value);
    }
    // A batch of one: no attributes, last offset delta, two timestamps, no producer, one record.
    let mut batch = [&[0; 2][..], &[0; 4], &[0; 16], &[0xff; 14], &1_i32.to_be_bytes()].concat();
    varint(&mut batch, record.len());
    batch.extend(record);
    let batch = [&[0xff; 4][..], &[2], &crc32c(&batch).to_be_bytes(), &batch].concat();
    let batch = [&[0; 8][..], &length(&batch), &batch].concat();
    // Produce, version 3: correlation, no client, no transaction, all acks, a timeout, one topic, one partition.
    let name = [&u16::try_from(topic.len()).unwrap().to_be_bytes()[..], topic.as_bytes()].concat();
    let one = 1_i32.to_be_bytes();
    let request = [
        &[0, 0, 0, 3, 0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0x27, 0x10][..],
        &one,
        &name,
        &one,
        &[0; 4],
        &length(&batch),
        &batch,
    ]
    .concat();
    let mut stream = TcpStream::connect(server).unwrap();
    let end = Instant::now() + PATIENCE;
    loop {
        stream.write_all(&[&length(&request)[..], &request].concat()).unwrap();
        let mut size = [0; 4];
        stream.read_exact(&mut size).unwrap();
        let mut answer = vec![0; usize::try_from(u32::from_be_bytes(size)).unwrap()];
        stream.read_exact(&mut answer).unwrap();
        // Correlation, one topic, its name, one partition, its index, the error.
        let error = &answer[4 + 4 + name.len() + 4 + 4..][..2];
        if error == [0, 0] {
            return;
        }
        // Of a topic made just now the broker may not know yet that it leads it.
        assert!(matches!(error, [0, 3 | 6]) && Instant::now() < end, "the broker does not take it: error {error:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap().to_be_bytes()
}

fn bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    varint(to, bytes.len());
    to.extend(bytes);
}

fn varint<T: TryInto<i64>>(to: &mut Vec<u8>, value: T) {
    let Ok(value) = value.try_into() else { panic!("a small number") };
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        to.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    to.push(u8::try_from(rest).unwrap());
}

fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}
