//! Real traces: every encoding of the same thousand requests reads the same, and whole traces
//! have the counts that other decoders found.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail them by panicking")]

mod common;

use common::reference;
use std::collections::HashSet;
use std::time::Duration;
use tierce_bench::{Format, Op, Request, Target, Trace};

fn requests(name: &str, format: Format) -> Option<Vec<Request>> {
    let trace = Trace::open(&reference(name)?, None).unwrap();
    assert_eq!(trace.format(), format, "{name}");
    Some(trace.map(|request| request.unwrap()).collect())
}

fn count(requests: &[Request], op: Op) -> usize {
    requests.iter().filter(|request| request.op == op).count()
}

/// A thousand requests of a VMware disk in eight encodings.
#[test]
fn a_thousand_requests_in_every_encoding() {
    let Some(wanted) = requests("traces/formats/slice1000.vscsi", Format::Vscsi) else { return };
    assert_eq!(wanted[999].time, Duration::from_micros(3_672_611));
    for (name, format) in [
        ("vscsi", Format::Vscsi),
        ("oracleGeneral", Format::OracleGeneral),
        ("msr.csv", Format::Msr),
        ("fio2.iolog", Format::FioIolog),
        ("fio3.iolog", Format::FioIolog),
        ("blktrace.0", Format::Blktrace),
        ("blkparse.txt", Format::Blkparse),
        ("cachebench-kv.csv", Format::CachebenchKv),
    ] {
        let found = requests(&format!("traces/formats/slice1000.{name}"), format).unwrap();
        assert_eq!(found.len(), 1000, "{name}");
        assert_eq!(found.iter().map(|r| r.size).sum::<u64>(), 6_340_608, "{name}");
        let starts: HashSet<_> = found.iter().map(|r| r.target.key()).collect();
        assert_eq!(starts.len(), 318, "{name}");
        let reads = if format == Format::OracleGeneral { 1000 } else { 744 };
        assert_eq!((count(&found, Op::Get), count(&found, Op::Set)), (reads, 1000 - reads));

        for (index, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
            assert_eq!(found.target.key(), wanted.target.key(), "{name}, request {index}");
            assert_eq!(found.size, wanted.size, "{name}, request {index}");
            if let Target::Extent { .. } = found.target {
                // Times are exact but for fio 2's, whose recording lacks some short waits.
                let late = wanted.time.abs_diff(found.time);
                let allowed = if name == "fio2.iolog" { 100 } else { 0 };
                assert!(
                    late <= Duration::from_micros(allowed),
                    "{name}, request {index}: {late:?}"
                );
                assert_eq!((found.op, found.target), (wanted.op, wanted.target), "{name}");
            }
        }
    }
}

#[test]
fn a_whole_disk_in_two_encodings() {
    let Some(vscsi) = requests("traces/cloudphysics.vscsi.zst", Format::Vscsi) else { return };
    assert_eq!((count(&vscsi, Op::Get), count(&vscsi, Op::Set)), (46_974, 66_898));
    let pages: HashSet<_> = vscsi.iter().flat_map(|r| r.pages(4096).unwrap()).collect();
    assert_eq!(pages.len(), 269_210);
    assert_eq!(vscsi.iter().map(|r| r.size).min(), Some(512));
    assert_eq!(vscsi.iter().map(|r| r.size).max(), Some(68 << 10));

    let name = "traces/cloudphysics.oracleGeneral.zst";
    let oracle = requests(name, Format::OracleGeneral).unwrap();
    assert_eq!(oracle.len(), vscsi.len());
    // The conversion kept the order and the starts, but not all sizes.
    let pairs = || oracle.iter().zip(&vscsi);
    assert!(pairs().all(|(a, b)| a.target.key() == b.target.key()));
    assert_eq!(pairs().filter(|(a, b)| a.size != b.size).count(), 13_671);
}

#[test]
fn language_model_blocks() {
    let name = "traces/mooncake-conversation.jsonl.zst";
    let Some(blocks) = requests(name, Format::Mooncake) else { return };
    assert_eq!(blocks.len(), 288_500);
    let distinct: HashSet<_> = blocks.iter().map(|r| r.target).collect();
    assert_eq!(distinct.len(), 182_790);
}

#[test]
fn web_objects_compressed_with_xz() {
    let name = "traces/web-adaptsize.txt.xz";
    let Some(objects) = requests(name, Format::Webcachesim) else { return };
    assert_eq!(objects.len(), 66_987);
    let mut sizes: std::collections::HashMap<_, _> = Default::default();
    sizes.extend(objects.iter().map(|r| (r.target, r.size)));
    assert_eq!(sizes.len(), 36_815);
    assert_eq!(sizes.values().sum::<u64>(), 279_261_548);

    // The built-in workload's sizes are fitted to these.
    let logarithms: Vec<f64> = sizes.values().map(|&size| (size as f64).ln()).collect();
    let mean = logarithms.iter().sum::<f64>() / logarithms.len() as f64;
    let square = |x: &f64| (x - mean).powi(2);
    let deviation = (logarithms.iter().map(square).sum::<f64>() / logarithms.len() as f64).sqrt();
    use tierce_bench::workload::ValueSizes;
    assert!((mean - ValueSizes::WEB_LN_MEAN).abs() < 0.01, "{mean}");
    assert!((deviation - ValueSizes::WEB_LN_DEVIATION).abs() < 0.01, "{deviation}");
}

#[test]
fn disk_reads_of_a_workstation() {
    let Some(reads) = requests("traces/arc-P6.lis.zst", Format::Arc) else { return };
    assert_eq!(reads.len(), 519_711);
    assert_eq!(reads.iter().map(|r| r.size / 512).sum::<u64>(), 12_672_123);
    let pages: usize = reads.iter().map(|r| r.pages(4096).unwrap().count()).sum();
    assert_eq!(pages, 2_021_684);
}
