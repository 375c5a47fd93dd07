//! Arithmetic expressions as people write them: `2 * (3 + 4) ^ 2`. Read and
//! worked out in one pass; nested and long only as far as the limits allow.
//!
//! `^` binds tightest and to the right, then the sign, then `* / %`, then `+ -`.

/// How many characters an expression may have, and how deep it may be nested.
pub(super) const CHARS_MAX: usize = 1000;
const DEPTH_MAX: usize = 64;

/// The value of `text`.
///
/// # Errors
/// What is wrong with it, and where.
pub(super) fn value_of(text: &str) -> Result<f64, String> {
    if text.chars().count() > CHARS_MAX {
        return Err(format!("the expression must have at most {CHARS_MAX} characters"));
    }
    let mut reader = Reader { text, at: 0, depth: 0 };
    let value = reader.sum()?;
    match reader.peek() {
        None => finite(value, "the expression"),
        Some(_) => Err(reader.unexpected("an operator")),
    }
}

/// `value`, unless there is no such number.
pub(super) fn finite(value: f64, what: &str) -> Result<f64, String> {
    if value.is_finite() { Ok(value) } else { Err(format!("the value of {what} is not a finite number")) }
}

/// The first of two numbers divided by the second.
pub(super) fn quotient(a: f64, b: f64) -> Result<f64, String> {
    if b == 0.0 { Err("division by zero".to_owned()) } else { Ok(a / b) }
}

/// What is left of the first of two numbers when it is divided by the second.
pub(super) fn remainder(a: f64, b: f64) -> Result<f64, String> {
    if b == 0.0 { Err("division by zero".to_owned()) } else { Ok(a % b) }
}

struct Reader<'a> {
    text: &'a str,
    /// How many bytes were read.
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    /// The next character that is no space.
    fn peek(&mut self) -> Option<char> {
        self.at += self.rest().len() - self.rest().trim_start().len();
        self.rest().chars().next()
    }

    /// Reads `wanted`, if it is what comes next.
    fn take(&mut self, wanted: char) -> bool {
        let comes = self.peek() == Some(wanted);
        self.at += if comes { wanted.len_utf8() } else { 0 };
        comes
    }

    fn unexpected(&mut self, wanted: &str) -> String {
        match self.peek() {
            Some(found) => {
                let place = self.text[..self.at].chars().count() + 1;
                format!("{wanted} was expected at character {place}, and there is `{}`", found.escape_debug())
            }
            None => format!("{wanted} was expected at the end"),
        }
    }

    fn sum(&mut self) -> Result<f64, String> {
        let mut value = self.product()?;
        loop {
            if self.take('+') {
                value += self.product()?;
            } else if self.take('-') {
                value -= self.product()?;
            } else {
                return Ok(value);
            }
        }
    }

    fn product(&mut self) -> Result<f64, String> {
        let mut value = self.signed()?;
        loop {
            if self.take('*') {
                value *= self.signed()?;
            } else if self.take('/') {
                value = quotient(value, self.signed()?)?;
            } else if self.take('%') {
                value = remainder(value, self.signed()?)?;
            } else {
                return Ok(value);
            }
        }
    }

    fn signed(&mut self) -> Result<f64, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("the expression is nested deeper than {DEPTH_MAX} levels"));
        }
        let value = if self.take('-') {
            -self.signed()?
        } else if self.take('+') {
            self.signed()?
        } else {
            self.power()?
        };
        self.depth -= 1;
        Ok(value)
    }

    fn power(&mut self) -> Result<f64, String> {
        let base = self.operand()?;
        Ok(if self.take('^') { base.powf(self.signed()?) } else { base })
    }

    fn operand(&mut self) -> Result<f64, String> {
        match self.peek() {
            Some('(') => Ok(self.values()?.iter().sum()),
            Some(digit) if digit.is_ascii_digit() || digit == '.' => self.number(),
            Some(letter) if letter.is_ascii_alphabetic() => self.named(),
            _ => Err(self.unexpected("a number")),
        }
    }

    fn number(&mut self) -> Result<f64, String> {
        let rest = self.rest();
        let digits = |text: &str| text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let mut end = digits(rest);
        // `2e3`, and not the beginning of a name.
        if let Some(exponent) = rest[end..].strip_prefix(['e', 'E']) {
            let sign = usize::from(exponent.starts_with(['+', '-']));
            let count = exponent[sign..].bytes().take_while(u8::is_ascii_digit).count();
            end += if count > 0 { 1 + sign + count } else { 0 };
        }
        let number = rest[..end].parse().map_err(|_| format!("`{}` is no number", &rest[..end]))?;
        self.at += end;
        Ok(number)
    }

    /// A constant, or a function with what it is given.
    fn named(&mut self) -> Result<f64, String> {
        let length = self.rest().bytes().take_while(u8::is_ascii_alphanumeric).count();
        let name = self.rest()[..length].to_owned();
        self.at += length;
        if self.peek() != Some('(') {
            return match name.as_str() {
                "pi" => Ok(std::f64::consts::PI),
                "e" => Ok(std::f64::consts::E),
                _ => Err(format!("there is no constant `{name}`; there are pi and e")),
            };
        }
        let values = self.values()?;
        let value = match (name.as_str(), values.as_slice()) {
            ("abs", [x]) => x.abs(),
            ("ceil", [x]) => x.ceil(),
            ("cos", [x]) => x.cos(),
            ("exp", [x]) => x.exp(),
            ("floor", [x]) => x.floor(),
            ("ln", [x]) => x.ln(),
            ("log10", [x]) => x.log10(),
            ("round", [x]) => x.round(),
            ("sin", [x]) => x.sin(),
            ("sqrt", [x]) => x.sqrt(),
            ("tan", [x]) => x.tan(),
            ("max", [first, rest @ ..]) => rest.iter().copied().fold(*first, f64::max),
            ("min", [first, rest @ ..]) => rest.iter().copied().fold(*first, f64::min),
            _ => {
                let known = "abs, ceil, cos, exp, floor, ln, log10, max, min, round, sin, sqrt, tan";
                return Err(format!("there is no function `{name}` of {} values; there are {known}", values.len()));
            }
        };
        finite(value, &format!("`{name}`"))
    }

    /// What stands in parentheses: one value, or after a name several.
    fn values(&mut self) -> Result<Vec<f64>, String> {
        let named = self.text[..self.at].trim_end().ends_with(|c: char| c.is_ascii_alphanumeric());
        self.take('(');
        let mut values = vec![self.sum()?];
        while named && self.take(',') {
            values.push(self.sum()?);
        }
        if self.take(')') { Ok(values) } else { Err(self.unexpected("`)`")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    #[allow(clippy::float_cmp, reason = "the numbers are exact")]
    fn expressions_mean_what_people_mean() {
        for (text, value) in [
            ("1 + 2 * 3", 7.0),
            ("(1 + 2) * 3", 9.0),
            ("2 ^ 3 ^ 2", 512.0),
            ("-2 ^ 2", -4.0),
            ("2 ^ -1", 0.5),
            ("2 * -3", -6.0),
            ("10 - 4 - 3", 3.0),
            ("20 / 2 / 5", 2.0),
            ("7 % 4", 3.0),
            ("1.5e3 + .5", 1500.5),
            ("2e", f64::NAN),
            ("sqrt(16) + max(1, 5, 3) - min(2, 1)", 8.0),
            ("round(2.5) + floor(-0.5) + ceil(0.1)", 3.0),
            ("abs(-3) * (pi - pi)", 0.0),
            ("ln(e)", 1.0),
            ("--1", 1.0),
        ] {
            match value_of(text) {
                Ok(found) => assert_eq!(found, value, "{text}"),
                Err(why) => assert!(value.is_nan(), "{text}: {why}"),
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, said) in [
            ("", "a number was expected at the end"),
            ("1 +", "a number was expected at the end"),
            ("1 2", "an operator was expected at character 3, and there is `2`"),
            ("(1", "`)` was expected at the end"),
            ("1, 2", "an operator was expected at character 2"),
            ("(1, 2)", "`)` was expected at character 3"),
            ("1 / (2 - 2)", "division by zero"),
            ("5 % 0", "division by zero"),
            ("tau", "no constant `tau`"),
            ("import(1)", "no function `import` of 1 values"),
            ("sqrt(-1)", "the value of `sqrt` is not a finite number"),
            ("10 ^ 400", "the value of the expression is not a finite number"),
            ("1.2.3", "`1.2.3` is no number"),
            ("ü", "a number was expected at character 1, and there is `ü`"),
        ] {
            let why = value_of(text).unwrap_err();
            assert!(why.contains(said), "{text}: {why}");
        }
        let deep = |levels: usize| format!("{}1{}", "(".repeat(levels), ")".repeat(levels));
        assert!(value_of(&deep(60)).is_ok());
        assert!(value_of(&deep(400)).unwrap_err().contains("nested deeper"));
        assert!(value_of(&"-".repeat(900)).unwrap_err().contains("nested deeper"));
        assert!(value_of(&"1".repeat(1001)).unwrap_err().contains("at most 1000 characters"));
    }

    proptest! {
        #[test]
        fn nothing_that_is_written_does_harm(text in "[-0-9+*/%^().,a-z ü]{0,80}") {
            if let Ok(value) = value_of(&text) {
                prop_assert!(value.is_finite());
            }
        }
    }
}
