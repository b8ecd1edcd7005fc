//! Every format on vectors of our own, the same few requests in each encoding, and what each
//! says about damaged input.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail them by panicking")]

use std::path::PathBuf;
use std::time::Duration;
use tierce_bench::{Error, Format, Op, Request, Target, Trace};

/// A file that is gone with its directory at the end of the test.
struct File {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

fn file(name: &str, content: &[u8]) -> File {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, content).unwrap();
    File { _directory: directory, path }
}

/// All requests of a file with this content, whose format must be recognised.
fn read(format: Format, content: &[u8]) -> Result<Vec<Request>, Error> {
    let file = file("trace", content);
    let trace = Trace::open(&file.path, None)?;
    assert_eq!(trace.format(), format);
    trace.collect()
}

/// The message about this content, without the path.
fn message(format: Option<Format>, content: &[u8]) -> String {
    let file = file("trace", content);
    let error = match Trace::open(&file.path, format) {
        Ok(trace) => trace.collect::<Result<Vec<_>, _>>().unwrap_err(),
        Err(error) => error,
    };
    let message = error.to_string();
    assert!(!message.contains('\n'), "one line: {message}");
    let prefix = format!("trace {}: ", file.path.display());
    message.strip_prefix(&prefix).unwrap_or_else(|| panic!("names the file: {message}")).to_owned()
}

fn at(seconds: u64, op: Op, target: Target, size: u64) -> Request {
    Request { time: Duration::from_secs(seconds), op, target, size }
}

/// Three requests of a block trace: read 4 KiB at sector 8, write 512 B at sector 63 two
/// seconds later, read the first again three seconds after that.
fn block_requests() -> Vec<Request> {
    let extent = |sector: u64| Target::Extent { volume: 0, offset: sector * 512 };
    vec![
        at(0, Op::Get, extent(8), 4096),
        at(2, Op::Set, extent(63), 512),
        at(5, Op::Get, extent(8), 4096),
    ]
}

/// Concatenates the little-endian bytes of the fields.
macro_rules! record {
    ($($field:expr),* $(,)?) => {{
        let mut bytes = Vec::new();
        $(bytes.extend_from_slice(&$field.to_le_bytes());)*
        bytes
    }};
}

fn vscsi_v1() -> Vec<u8> {
    [(8u64, 4096u32, 0x28u16, 100u64), (63, 512, 0x2a, 2_000_100), (8, 4096, 0x88, 5_000_100)]
        .iter()
        .flat_map(|&(lbn, len, cmd, us)| record!(1u32, len, 1u32, cmd, 0x0100u16, lbn, us))
        .collect()
}

fn vscsi_v2() -> Vec<u8> {
    [(8u64, 4096u32, 0x08u16, 100u64), (63, 512, 0x0a, 2_000_100), (8, 4096, 0x28, 5_000_100)]
        .iter()
        .flat_map(|&(lbn, len, cmd, us)| record!(cmd, 0x0200u16, 1u32, len, 1u32, lbn, us, 30u64))
        .collect()
}

#[test]
fn vscsi() {
    assert_eq!(read(Format::Vscsi, &vscsi_v1()).unwrap(), block_requests());
    assert_eq!(read(Format::Vscsi, &vscsi_v2()).unwrap(), block_requests());

    assert_eq!(
        message(Some(Format::Vscsi), &vscsi_v1()[..70]),
        "byte 64: found the file's end after 6 bytes of a record, wanted 32 bytes"
    );
    let mut damaged = vscsi_v1();
    damaged[32 + 12] = 0x77;
    let wanted = "byte 32: found SCSI command 0x77, wanted a read or write";
    assert_eq!(message(Some(Format::Vscsi), &damaged), wanted);
    damaged = vscsi_v2();
    damaged[80 + 3] = 9;
    let wanted = "byte 80: found version 9, wanted version 2";
    assert_eq!(message(Some(Format::Vscsi), &damaged), wanted);
    damaged = vscsi_v1();
    damaged[23] = 0xff;
    assert!(message(Some(Format::Vscsi), &damaged).starts_with("byte 0: found 4096 bytes from"));
    assert_eq!(
        message(Some(Format::Vscsi), b"read 7"),
        "byte 0: found no vscsi record, wanted a vscsi record of version 1 or 2"
    );
}

#[test]
fn oracle_general() {
    let objects = [(10u32, 7u64, 4096u32, 3i64), (12, u64::MAX, 1, -1), (15, 7, 4096, -1)];
    let content: Vec<u8> =
        objects.iter().flat_map(|&(s, id, size, next)| record!(s, id, size, next)).collect();
    let object = |seconds, id, size| at(seconds, Op::Get, Target::Object(id), size);
    let wanted = vec![object(0, 7, 4096), object(2, u64::MAX, 1), object(5, 7, 4096)];
    assert_eq!(read(Format::OracleGeneral, &content).unwrap(), wanted);

    assert_eq!(
        message(Some(Format::OracleGeneral), &content[..50]),
        "byte 48: found the file's end after 2 bytes of a record, wanted 24 bytes"
    );
    let mut damaged = content;
    damaged[24 + 15] = 0xff;
    assert!(
        message(Some(Format::OracleGeneral), &damaged)
            .starts_with("byte 24: found a size of 4278190081 bytes and next access -1")
    );
}

#[test]
fn msr() {
    let text = "128166372003061629,usr,0,Read,4096,4096,41286\n\
                128166372023061629,usr,0,Write,32256,512,13\n\
                128166372053061629,usr,0,Read,4096,4096,99\n";
    assert_eq!(read(Format::Msr, text.as_bytes()).unwrap(), block_requests());

    // Unsorted, and of two disks.
    let text = "20000000,a,0,Read,0,512,1\n10000000,a,1,Read,0,512,1\n30000000,a,0,Read,0,512,1";
    let requests = read(Format::Msr, text.as_bytes()).unwrap();
    let other = Target::Extent { volume: 1, offset: 0 };
    assert_eq!((requests[1].target, requests[1].time), (other, Duration::ZERO));
    assert_eq!(requests[2].time, Duration::from_secs(1));

    let text = "1,a,0,Read,0,512,1\n2,a,0,Reed,0,512,1\n";
    assert_eq!(message(None, text.as_bytes()), "line 2: found \"Reed\", wanted Read or Write");
    let text = "1,a,0,Read,0,512,1\n\n2,a,0,Read,0";
    let wanted = "line 3: found the line's end, wanted a size in bytes";
    assert_eq!(message(None, text.as_bytes()), wanted);
    let text = "1,a,0,Read,0,512,1\n2,a,0,Read,18446744073709551615,512,1";
    assert!(message(None, text.as_bytes()).starts_with("line 2: found 512 bytes from byte 18446"));
}

#[test]
fn fio_iolog() {
    let text = "fio version 2 iolog\n/dev/x add\n/dev/x open\n/dev/x read 4096 4096\n\
                /dev/x wait 2000000 0\n/dev/x write 32256 512\n/dev/x sync 0 0\n\
                /dev/x wait 3000000 0\n/dev/x read 4096 4096\n/dev/x close\n";
    assert_eq!(read(Format::FioIolog, text.as_bytes()).unwrap(), block_requests());
    let text = "fio version 3 iolog\n7 /dev/x add\n7 /dev/x open\n7 /dev/x read 4096 4096\n\
                2000007 /dev/x write 32256 512\n5000007 /dev/x read 4096 4096\n";
    assert_eq!(read(Format::FioIolog, text.as_bytes()).unwrap(), block_requests());

    let text = "fio version 3 iolog\n0 a trim 0 1099511627776\n0 b read 0 512\n";
    let requests = read(Format::FioIolog, text.as_bytes()).unwrap();
    assert_eq!((requests[0].op, requests[0].size), (Op::Remove, 1 << 40));
    assert_eq!(requests[1].target, Target::Extent { volume: 1, offset: 0 });

    let text = "fio version 2 iolog\na read 0 512\na seek 1 2\n";
    assert!(message(None, text.as_bytes()).starts_with("line 3: found \"seek\", wanted add, "));
    let text = "fio version 3 iolog\na read 0 512\n";
    let wanted = "line 2: found \"a\", wanted a time in µs";
    assert_eq!(message(None, text.as_bytes()), wanted);
    let text = "fio version 2 iolog\na add\n";
    assert_eq!(message(None, text.as_bytes()), "line 2: found no request, wanted at least one");
    let text = "fio version 1\n";
    assert!(message(Some(Format::FioIolog), text.as_bytes()).starts_with("line 1: found \"fio v"));
}

#[test]
fn blkparse() {
    let text = "  8,0    1        1     0.500000000  7  Q   R 8 + 8 [a]\n\
                \u{20} 8,0    1        2     0.500000001  7  G   R 8 + 8 [a]\n\
                \u{20} 8,0    1        0     0.600000000  0  m   N cfq7 message\n\
                \u{20} 8,0    1        3     2.500000000  7  Q  WS 63 + 1 [a]\n\
                \u{20} 8,0    1        4     2.600000000  7  Q FWS [a]\n\
                \u{20} 8,0    1        5     2.700000000  7  P   N [a]\n\
                \u{20} 8,0    0        6     5.500000000  7  Q  RA 8 + 8 [a]\n\
                CPU0 (8,0):\n Reads Queued:           2,        8KiB\n";
    // The flush has neither R nor D in its kind, but a W: preflush of a write without data.
    let error = message(None, text.as_bytes());
    assert!(error.starts_with("line 5: found \"8,0"), "{error}");
    let text = text.replace("FWS [a]", "FN 0 + 0 [a]");
    assert_eq!(read(Format::Blkparse, text.as_bytes()).unwrap(), block_requests());

    let text = "8,0 1 1 0.000000000 7 Q D 0 + 8 [a]\n8,16 1 1 0.5 7 Q R 0 + 8 [a]\n";
    let error = message(None, text.as_bytes());
    assert_eq!(error, "line 2: found \"0.5\", wanted a time as seconds.nanoseconds");
    let text = text.replace("0.5", "0.500000000");
    let requests = read(Format::Blkparse, text.as_bytes()).unwrap();
    assert_eq!(requests[0].op, Op::Remove);
    assert_eq!(requests[1].target, Target::Extent { volume: 1, offset: 0 });
}

fn blktrace_record(
    magic: u32,
    nanos: u64,
    sector: u64,
    bytes: u32,
    action: u32,
    data: u16,
) -> Vec<u8> {
    let mut record =
        record!(magic, 1u32, nanos, sector, bytes, action, 7u32, 0x0080_0000u32, 0u32, 0u16, data);
    record.extend(vec![0x55; data.into()]);
    record
}

#[test]
fn blktrace() {
    const MAGIC: u32 = 0x6561_7407;
    let (read_queued, write_queued) = (1 | 1 << 16 | 1 << 20, 1 | 1 << 17 | 1 << 20);
    let records = [
        blktrace_record(MAGIC, 0, 0, 0, 1 | 1 << 26, 5), // a message
        blktrace_record(MAGIC, 1_000_000_000, 8, 4096, read_queued, 3),
        blktrace_record(MAGIC, 1_000_000_009, 8, 4096, 7 | 1 << 16, 0), // issued
        blktrace_record(MAGIC, 3_000_000_000, 63, 512, write_queued, 0),
        blktrace_record(MAGIC, 3_000_000_000, 0, 0, write_queued | 1 << 18, 0), // flush
        blktrace_record(MAGIC, 6_000_000_000, 8, 4096, read_queued, 0),
    ];
    let content = records.concat();
    assert_eq!(read(Format::Blktrace, &content).unwrap(), block_requests());

    assert_eq!(
        message(None, &content[..50]),
        "byte 48: found the file's end after 2 bytes of a record's data, wanted 5 bytes"
    );
    let mut damaged = content;
    damaged[53] = 0;
    let wanted = "byte 53: found magic 0x65617400, wanted magic 0x65617407";
    assert_eq!(message(None, &damaged), wanted);
}

#[test]
fn cachebench_kv() {
    let text = "op_time,key,key_size,op,op_count,size,ttl\n\
                10,7,1,GET,1,4096,0\n12,user:1,6,SET,2,100,0\n\n15,7,1,DELETE,1,4096,0\n";
    let requests = read(Format::CachebenchKv, text.as_bytes()).unwrap();
    assert_eq!(requests.len(), 4);
    assert_eq!(requests[0], at(0, Op::Get, Target::Object(7), 4096));
    assert_eq!(requests[1], requests[2]);
    assert_eq!((requests[1].op, requests[1].size), (Op::Set, 100));
    assert_eq!(requests[3], at(5, Op::Remove, Target::Object(7), 4096));

    let short = "key,op,size\n7,GET_LEASE,10\n8,SET_LEASE,20\n";
    assert_eq!(read(Format::CachebenchKv, short.as_bytes()).unwrap().len(), 2);
    assert!(
        message(None, b"key,op,size\n7,GUT,10\n")
            .starts_with("line 2: found \"GUT\", wanted GET, ")
    );
    let wanted = "line 2: found the line's end, wanted a size in bytes";
    assert_eq!(message(None, b"key,op,size\n7,GET\n"), wanted);
    let wanted = "line 1: found \"key,op\", wanted a header with the columns key, op and size";
    assert_eq!(message(Some(Format::CachebenchKv), b"key,op\n7,GET\n"), wanted);
}

#[test]
fn arc() {
    let requests = read(Format::Arc, b"8 8 0 0\n63 1 0 1\n8 8 0 2\n").unwrap();
    let wanted = block_requests();
    for (found, wanted) in requests.iter().zip(&wanted) {
        let all_reads = Request { time: Duration::ZERO, op: Op::Get, ..*wanted };
        assert_eq!(*found, all_reads);
    }
    assert_eq!(requests.len(), 3);
    let error = message(None, b"8 8 0 0\n8 x 0 1\n");
    assert_eq!(error, "line 2: found \"x\", wanted a number of blocks");
    assert!(message(None, b"8 8 0 0\n8 3000000 0 1\n").starts_with("line 2: found 3000000 blocks"));
}

#[test]
fn webcachesim() {
    let requests = read(Format::Webcachesim, b"1 0 68\n2 1 7454\n").unwrap();
    assert_eq!(requests[1], at(1, Op::Get, Target::Object(1), 7454));
    let error = message(None, b"1 0 68\n2 1\n");
    assert_eq!(error, "line 2: found the line's end, wanted a size in bytes");
}

#[test]
fn mooncake() {
    let text = "{\"timestamp\": 0, \"input_length\": 9, \"hash_ids\": [0, 1]}\n\
                {\"timestamp\": 3000, \"input_length\": 9, \"hash_ids\": []}\n\
                {\"timestamp\": 3000, \"input_length\": 9, \"hash_ids\": [0]}\n";
    let requests = read(Format::Mooncake, text.as_bytes()).unwrap();
    assert_eq!(requests.len(), 3);
    assert_eq!(requests[2], at(3, Op::Get, Target::Object(0), 4096));
    let error = message(None, &text.as_bytes()[..text.len() - 8]);
    assert!(error.starts_with("line 3: found EOF while parsing"), "{error}");
}

#[test]
fn unknown_and_unreadable() {
    let error = message(None, b"");
    assert!(error.starts_with("it starts with nothing (it is empty), wanted one of the formats"));
    let error = message(None, b"PNG\x89\0\n rest");
    assert!(error.starts_with("it starts with \"PNG\\x89\\x00\\n rest\", wanted"), "{error}");
    assert!(error.ends_with("webcachesim, mooncake"));
    let error = message(Some(Format::Arc), b"8 8 0 0\n\xff\xfe 1 2 3\n");
    assert_eq!(error, "line 2: found bytes that are not UTF-8, wanted lines of text");

    let directory = tempfile::tempdir().unwrap();
    let error = Trace::open(directory.path(), None).unwrap_err().to_string();
    assert!(error.ends_with("cannot open it: is a directory"), "{error}");
}

#[test]
fn a_cut_compressed_trace_says_how_far_it_went() {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    let lines: String =
        (0..200_000).map(|i| format!("{i} {} 4096\n", i * 7919 % 100_003)).collect();
    let packed = compress_to_vec(lines.as_bytes(), CompressionLevel::Fastest);
    assert_eq!(read(Format::Webcachesim, &packed).unwrap().len(), 200_000);
    let error = message(None, &packed[..packed.len() / 2]);
    assert!(error.starts_with("cannot read on after line "), "{error}");
}

/// Arbitrary bytes never panic, whatever they are taken for.
#[test]
fn any_bytes_give_requests_or_an_error() {
    use proptest::prelude::*;
    let run = |content: Vec<u8>| {
        let file = file("trace", &content);
        for format in Format::ALL.map(Some).into_iter().chain([None]) {
            if let Ok(trace) = Trace::open(&file.path, format) {
                for request in trace.take(10_000).flatten() {
                    let _ = request.pages(512);
                }
            }
        }
    };
    let prefixes: [&[u8]; 6] = [
        b"",
        b"fio version 3 iolog\n",
        b"key,op,size\n",
        &[7, 0x74, 0x61, 0x65],
        b"{",
        b"\x28\xb5\x2f\xfd",
    ];
    let text = "[0-9,. +\nQRWD{}]{0,300}";
    let content =
        prop_oneof![
            (0..6usize, proptest::collection::vec(any::<u8>(), 0..300))
                .prop_map(move |(i, bytes)| [prefixes[i], &bytes].concat()),
            (0..6usize, text).prop_map(move |(i, text)| [prefixes[i], text.as_bytes()].concat()),
        ];
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    runner
        .run(&content, |content| {
            run(content);
            Ok(())
        })
        .unwrap();
}
