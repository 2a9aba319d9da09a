//! Zigzag variable-length integers, as records use them.

use std::io::{self, BufRead};

pub(super) fn put(out: &mut Vec<u8>, value: i64) {
    let mut bits = ((value << 1) ^ (value >> 63)) as u64;
    while bits >= 0x80 {
        out.push((bits as u8) | 0x80);
        bits >>= 7;
    }
    out.push(bits as u8);
}

/// Bytes that [`put`] takes.
pub(super) fn size(value: i64) -> usize {
    let bits = ((value << 1) ^ (value >> 63)) as u64;
    (64 - (bits | 1).leading_zeros() as usize).div_ceil(7)
}

fn too_long() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "a variable-length integer is too long",
    )
}

/// A 64-bit value of at most ten bytes.
#[inline]
pub(super) fn long(reader: &mut impl BufRead) -> io::Result<i64> {
    bits(reader, 64).map(zigzag)
}

/// A 32-bit value of at most five bytes.
#[inline]
pub(super) fn int(reader: &mut impl BufRead) -> io::Result<i32> {
    bits(reader, 32).map(|bits| zigzag(bits) as i32)
}

fn zigzag(bits: u64) -> i64 {
    ((bits >> 1) as i64) ^ -((bits & 1) as i64)
}

/// One or two bytes, as nearly all values have, are read without a loop if they are there in one piece.
#[inline]
fn bits(reader: &mut impl BufRead, width: u32) -> io::Result<u64> {
    let (bits, bytes) = match *reader.fill_buf()? {
        [one, ..] if one < 0x80 => (u64::from(one), 1),
        [one, two, ..] if two < 0x80 => (u64::from(one & 0x7f) | u64::from(two) << 7, 2),
        _ => return bits_of_many(reader, width),
    };
    reader.consume(bytes);
    Ok(bits)
}

#[cold]
fn bits_of_many(reader: &mut impl BufRead, width: u32) -> io::Result<u64> {
    let mut bits = 0u64;
    for shift in (0..width).step_by(7) {
        let byte = byte(reader)?;
        let left = width - shift;
        // Also where another byte is announced behind the last.
        if left < 8 && byte >> left != 0 {
            return Err(too_long());
        }
        bits |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(bits);
        }
    }
    Err(too_long())
}

#[inline]
pub(super) fn byte(reader: &mut impl BufRead) -> io::Result<u8> {
    let byte = *reader.fill_buf()?.first().ok_or(io::ErrorKind::UnexpectedEof)?;
    reader.consume(1);
    Ok(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_reads_back_and_takes_the_size_it_said() {
        for value in [
            0,
            1,
            -1,
            63,
            64,
            -64,
            -65,
            300,
            i64::from(i32::MAX),
            i64::from(i32::MIN),
            i64::MAX,
            i64::MIN,
        ] {
            let mut out = Vec::new();
            put(&mut out, value);
            assert_eq!(out.len(), size(value), "{value}");
            assert_eq!(long(&mut out.as_slice()).ok(), Some(value));
            let mut byte_by_byte = io::BufReader::with_capacity(1, out.as_slice());
            assert_eq!(long(&mut byte_by_byte).ok(), Some(value));
            if let Ok(short) = i32::try_from(value) {
                assert_eq!(int(&mut out.as_slice()).ok(), Some(short));
            }
        }
    }

    #[test]
    fn an_integer_of_more_bytes_than_its_type_has_is_refused() {
        assert!(int(&mut [0xffu8, 0xff, 0xff, 0xff, 0x1f].as_slice()).is_err());
        assert!(int(&mut [0x80u8; 6].as_slice()).is_err());
        assert!(long(&mut [0x80u8; 11].as_slice()).is_err());
        assert!(long(&mut [].as_slice()).is_err());
    }
}
