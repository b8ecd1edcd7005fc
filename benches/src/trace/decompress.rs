//! Traces come compressed: recognised by their first bytes, decoded as they are read.
//!
//! All decoders are pure Rust. None may take more than [`WINDOW_BYTES_MAX`] for its window,
//! whatever the file says.

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::io::{self, BufRead, Read};

/// 128 MiB: what `zstd --long` makes by default; more is refused.
const WINDOW_BYTES_MAX: u64 = 128 << 20;

const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const XZ: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];
const GZIP: [u8; 3] = [0x1f, 0x8b, 8];

/// A zstd frame to skip starts with 0x184d2a50 to 0x184d2a5f, little-endian.
fn is_zstd_skippable(head: &[u8]) -> bool {
    matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// `source` decompressed, according to the first bytes it holds, `head`.
pub(super) fn decompressed(
    head: &[u8],
    source: impl BufRead + Send + 'static,
) -> Box<dyn Read + Send> {
    if head.starts_with(&ZSTD) || is_zstd_skippable(head) {
        Box::new(Zstd::new(source))
    } else if head.starts_with(&XZ) {
        let kib = (WINDOW_BYTES_MAX / 1024) as u32;
        Box::new(lzma_rust2::XzReader::new_mem_limit(source, true, kib))
    } else if head.starts_with(&GZIP) {
        Box::new(flate2::bufread::MultiGzDecoder::new(source))
    } else {
        Box::new(source)
    }
}

/// A file of any number of zstd frames, each with its checksum verified.
struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(WINDOW_BYTES_MAX);
        Self { source, decoder, in_frame: false }
    }

    /// Starts the next frame with content; `false` at the end of the file.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => self.skip(u64::from(length))?,
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }

    fn skip(&mut self, length: u64) -> io::Result<()> {
        let skipped = io::copy(&mut (&mut self.source).take(length), &mut io::sink())?;
        if skipped < length {
            let found = format!("a skippable zstd frame of {length} bytes ends after {skipped}");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, found));
        }
        Ok(())
    }

    fn check_sum(&self) -> io::Result<()> {
        let wanted = self.decoder.get_checksum_from_data();
        let found = self.decoder.get_calculated_checksum();
        if wanted.is_some() && found != wanted {
            let (found, wanted) = (found.unwrap_or_default(), wanted.unwrap_or_default());
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("zstd content checksum: found {found:#010x}, wanted {wanted:#010x}"),
            ));
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.in_frame {
                if !self.next_frame()? {
                    return Ok(0);
                }
                self.in_frame = true;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(io::Error::other)?;
            }
            let read = self.decoder.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            self.check_sum()?;
            self.in_frame = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    use std::io::{Cursor, Write};

    fn read(file: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        decompressed(&file.clone(), Cursor::new(file)).read_to_end(&mut content).map(|_| content)
    }

    fn zstd(content: &[u8]) -> Vec<u8> {
        compress_to_vec(content, CompressionLevel::Fastest)
    }

    #[test]
    fn plain_is_left_alone() {
        assert_eq!(read(b"1 2 3\n".to_vec()).unwrap(), b"1 2 3\n");
        assert_eq!(read(Vec::new()).unwrap(), b"");
    }

    #[test]
    fn zstd_frames_follow_each_other_and_are_skipped() {
        let mut file = vec![0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, b'a', b'b', b'c'];
        file.extend(zstd(b"first "));
        file.extend(zstd(b"second"));
        assert_eq!(read(file).unwrap(), b"first second");
    }

    #[test]
    fn a_cut_or_damaged_zstd_frame_is_an_error() {
        let content: Vec<u8> = (0..10_000u32).flat_map(u32::to_le_bytes).collect();
        let file = zstd(&content);
        assert_eq!(read(file.clone()).unwrap(), content);
        for cut in [5, 20, file.len() / 2, file.len() - 1] {
            assert!(read(file[..cut].to_vec()).is_err(), "cut at {cut} of {}", file.len());
        }
        let mut damaged = file.clone();
        let middle = file.len() / 2;
        damaged[middle] ^= 1;
        assert!(read(damaged).is_err());
        assert!(read(vec![0x53, 0x2a, 0x4d, 0x18, 9, 0, 0, 0, 1]).is_err());
    }

    #[test]
    fn gzip_and_xz_are_read() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"1 2 3\n").unwrap();
        assert_eq!(read(gzip.finish().unwrap()).unwrap(), b"1 2 3\n");
        // `printf '1 2 3\n' | xz`
        assert_eq!(read(XZ_FILE.to_vec()).unwrap(), b"1 2 3\n");
        assert!(read(XZ_FILE[..40].to_vec()).is_err());
    }

    const XZ_FILE: &[u8] = include!("../../tests/vectors/one_two_three.xz.in");
}
