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
    match short(reader)? {
        Some(bits) => Ok(i64::from(zigzag(bits))),
        None => long_bits(reader).map(|bits| ((bits >> 1) as i64) ^ -((bits & 1) as i64)),
    }
}

/// A 32-bit value of at most five bytes.
#[inline]
pub(super) fn int(reader: &mut impl BufRead) -> io::Result<i32> {
    match short(reader)? {
        Some(bits) => Ok(zigzag(bits)),
        None => int_bits(reader).map(zigzag),
    }
}

fn zigzag(bits: u32) -> i32 {
    ((bits >> 1) as i32) ^ -((bits & 1) as i32)
}

/// A value of one or two bytes, as nearly all are, if it is there in one piece.
#[inline]
fn short(reader: &mut impl BufRead) -> io::Result<Option<u32>> {
    let (bits, bytes) = match *reader.fill_buf()? {
        [one, ..] if one < 0x80 => (u32::from(one), 1),
        [one, two, ..] if two < 0x80 => (u32::from(one & 0x7f) | u32::from(two) << 7, 2),
        _ => return Ok(None),
    };
    reader.consume(bytes);
    Ok(Some(bits))
}

#[cold]
fn long_bits(reader: &mut impl BufRead) -> io::Result<u64> {
    let mut bits = 0u64;
    for shift in (0..70).step_by(7) {
        let byte = byte(reader)?;
        if shift == 63 && byte > 1 {
            return Err(too_long());
        }
        bits |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(bits);
        }
    }
    Err(too_long())
}

#[cold]
fn int_bits(reader: &mut impl BufRead) -> io::Result<u32> {
    let mut bits = 0u32;
    for shift in (0..35).step_by(7) {
        let byte = byte(reader)?;
        if shift == 28 && byte > 0x0f {
            return Err(too_long());
        }
        bits |= u32::from(byte & 0x7f) << shift;
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
