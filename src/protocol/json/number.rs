//! Numbers: their grammar, and whether they are in the range of an `f64`.

use super::{Fault, JsonError, Scanner};

impl Scanner<'_> {
    /// Reads a number, of which the sign or the first digit is next.
    ///
    /// What is kept of the number, a significand that fits 64 bits and a power of ten, decides
    /// with the rounding of `serde_json` whether the number is out of the range of an `f64`.
    pub(super) fn number(&mut self) -> Result<(), JsonError> {
        let bytes = self.text;
        let peek = |at: usize| bytes.get(at).copied().unwrap_or(0);
        if peek(self.at) == b'-' {
            self.at += 1;
        }
        let mut float = Float::default();
        match bytes.get(self.at) {
            None => return Err(self.error_here(Fault::EofInValue)),
            Some(b'0') => {
                self.at += 1;
                if peek(self.at).is_ascii_digit() {
                    return Err(self.error_ahead(Fault::InvalidNumber));
                }
            }
            Some(b'1'..=b'9') => {
                while let digit @ b'0'..=b'9' = peek(self.at) {
                    self.at += 1;
                    if !float.push(digit) {
                        float.exponent = float.exponent.saturating_add(1);
                    }
                }
            }
            Some(_) => {
                self.at += 1;
                return Err(self.error_here(Fault::InvalidNumber));
            }
        }
        if peek(self.at) == b'.' {
            self.at += 1;
            // Digits that fit the significand again after some have been left out do count.
            float.full = false;
            let first = self.at;
            while let digit @ b'0'..=b'9' = peek(self.at) {
                self.at += 1;
                if float.push(digit) {
                    float.exponent = float.exponent.saturating_sub(1);
                }
            }
            if self.at == first {
                let at_end = self.at == bytes.len();
                return Err(self.error_ahead(if at_end {
                    Fault::EofInValue
                } else {
                    Fault::InvalidNumber
                }));
            }
        }
        if let b'e' | b'E' = peek(self.at) {
            self.at += 1;
            return self.exponent(float);
        }
        self.check_range(float)
    }

    /// Reads the exponent of a number after its `e`.
    fn exponent(&mut self, mut float: Float) -> Result<(), JsonError> {
        let bytes = self.text;
        let negative = bytes.get(self.at) == Some(&b'-');
        if let Some(b'+' | b'-') = bytes.get(self.at) {
            self.at += 1;
        }
        match bytes.get(self.at) {
            None => return Err(self.error_here(Fault::EofInValue)),
            Some(b'0'..=b'9') => {}
            Some(_) => {
                self.at += 1;
                return Err(self.error_here(Fault::InvalidNumber));
            }
        }
        let mut exponent = 0i32;
        while let Some(&digit @ b'0'..=b'9') = bytes.get(self.at) {
            self.at += 1;
            let longer = exponent
                .checked_mul(10)
                .and_then(|tens| tens.checked_add(i32::from(digit - b'0')));
            match longer {
                Some(longer) => exponent = longer,
                None if float.significand != 0 && !negative => {
                    return Err(self.error_here(Fault::NumberOutOfRange));
                }
                None => {
                    while let Some(b'0'..=b'9') = bytes.get(self.at) {
                        self.at += 1;
                    }
                    return Ok(());
                }
            }
        }
        float.exponent = if negative {
            float.exponent.saturating_sub(exponent)
        } else {
            float.exponent.saturating_add(exponent)
        };
        self.check_range(float)
    }

    fn check_range(&self, float: Float) -> Result<(), JsonError> {
        if float.is_finite() {
            Ok(())
        } else {
            Err(self.error_here(Fault::NumberOutOfRange))
        }
    }
}

/// 10^289 to 10^308. A table of these few, because parsing such a number brings in one of ten kilobytes.
const LARGE_POWERS: [f64; 20] = [
    1e289, 1e290, 1e291, 1e292, 1e293, 1e294, 1e295, 1e296, 1e297, 1e298, 1e299, 1e300, 1e301, 1e302, 1e303, 1e304,
    1e305, 1e306, 1e307, 1e308,
];

/// The value of a number as far as its range needs it.
#[derive(Default)]
struct Float {
    significand: u64,
    exponent: i32,
    /// A digit did not fit any more, so later ones don't count either.
    full: bool,
}

impl Float {
    /// Takes one more digit into the significand, false if it does not fit.
    fn push(&mut self, digit: u8) -> bool {
        let longer = self
            .significand
            .checked_mul(10)
            .and_then(|tens| tens.checked_add(u64::from(digit - b'0')));
        match longer {
            Some(longer) if !self.full => {
                self.significand = longer;
                true
            }
            _ => {
                self.full = true;
                false
            }
        }
    }

    fn is_finite(&self) -> bool {
        // 2^64 is less than 10^20, so up to here nothing can reach 10^308.
        if self.significand == 0 || self.exponent <= 288 {
            return true;
        }
        if self.exponent > 308 {
            return false;
        }
        let power = LARGE_POWERS[(self.exponent - 289) as usize];
        (self.significand as f64 * power).is_finite()
    }
}
