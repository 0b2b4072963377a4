//! `strftime_now(format)`: today's date, as chat templates print it.
//!
//! Covers the directives that published templates use, in the C locale, without time zones or a date library. The
//! calendar is the proleptic Gregorian one; the conversion from days is Howard Hinnant's `civil_from_days`
//! ("chrono-Compatible Low-Level Date Algorithms").

use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::{Error, ErrorKind};

const DAY_S: i64 = 86_400;
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// 9999-12-31T23:59:59Z, the last second that Python's `datetime` can print.
const UNIX_S_MAX: i64 = 253_402_300_799;

/// A moment, broken down.
struct Civil {
    year: i64,
    /// 1 to 12.
    month: i64,
    /// 1 to 31.
    day: i64,
    /// 0 is Sunday.
    weekday: i64,
    /// 1 to 366.
    day_of_year: i64,
    second_of_day: i64,
}

/// Formats a moment, in seconds since 1970; `None` is now. Moments before 1970 or after 9999 are clamped.
pub(super) fn strftime(format: &str, unix_s: Option<i64>) -> Result<String, Error> {
    let unix_s = unix_s.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    });
    let civil = Civil::from_unix(unix_s.clamp(0, UNIX_S_MAX));
    let mut text = String::with_capacity(format.len());
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        let mut directive = characters.next();
        let padded = directive != Some('-');
        if !padded {
            directive = characters.next();
        }
        let written = directive.and_then(|directive| civil.format(directive, padded)).ok_or_else(|| {
            let name = directive.map_or_else(String::new, String::from);
            Error::new(
                ErrorKind::InvalidOperation,
                format!("strftime_now does not know the directive `%{name}`"),
            )
        })?;
        text.push_str(&written);
    }
    Ok(text)
}

/// A moment in seconds since 1970 as RFC 3339 writes it, in UTC and without fractions.
pub fn rfc3339(unix_s: i64) -> String {
    let civil = Civil::from_unix(unix_s.clamp(0, UNIX_S_MAX));
    let Civil { year, month, day, second_of_day: s, .. } = civil;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", s / 3600, s / 60 % 60, s % 60)
}

impl Civil {
    fn from_unix(unix_s: i64) -> Self {
        let days = unix_s.div_euclid(DAY_S);
        let (year, month, day) = civil_from_days(days);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        // Days before the first of each month, without leap day: 0, 31, 59, 90, ...
        let before = (367 * month - 362) / 12 - if month <= 2 { 0 } else { 2 - i64::from(leap) };
        Self {
            year,
            month,
            day,
            weekday: (days + 4).rem_euclid(7),
            day_of_year: before + day,
            second_of_day: unix_s.rem_euclid(DAY_S),
        }
    }

    /// One directive; `padded` is false after `%-`.
    fn format(&self, directive: char, padded: bool) -> Option<String> {
        let number = |value: i64, width: usize| {
            if padded { format!("{value:0width$}") } else { value.to_string() }
        };
        let (hour, minute) = (self.second_of_day / 3600, self.second_of_day / 60 % 60);
        let day_name = || DAYS.get(usize::try_from(self.weekday).ok()?).copied();
        let month_name = || MONTHS.get(usize::try_from(self.month - 1).ok()?).copied();
        let short = |name: &str| name.chars().take(3).collect::<String>();
        Some(match directive {
            'Y' => number(self.year, 4),
            'y' => number(self.year % 100, 2),
            'm' => number(self.month, 2),
            'd' => number(self.day, 2),
            'e' => format!("{:2}", self.day),
            'j' => number(self.day_of_year, 3),
            'B' => month_name()?.to_owned(),
            'b' => short(month_name()?),
            'A' => day_name()?.to_owned(),
            'a' => short(day_name()?),
            'H' => number(hour, 2),
            'I' => number((hour + 11) % 12 + 1, 2),
            'M' => number(minute, 2),
            'S' => number(self.second_of_day % 60, 2),
            'p' => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            'F' => format!("{:04}-{:02}-{:02}", self.year, self.month, self.day),
            'T' => format!("{hour:02}:{minute:02}:{:02}", self.second_of_day % 60),
            '%' => "%".to_owned(),
            _ => return None,
        })
    }
}

/// Year, month (1 to 12) and day (1 to 31) of a day counted from 1970-01-01.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468; // days since 0000-03-01
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100); // from 1 March
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_known_moments() {
        // Python: datetime.utcfromtimestamp(t).strftime(...).
        for (unix_s, format, expected) in [
            (0, "%Y-%m-%d %H:%M:%S %A %j", "1970-01-01 00:00:00 Thursday 001"),
            (951_827_696, "%d %b %Y, %I:%M %p, day %j, %a", "29 Feb 2000, 12:34 PM, day 060, Tue"),
            (1_735_689_599, "%-d %B %y %-H:%M %j", "31 December 24 23:59 366"),
            (1_772_323_200, "%e|%F|%T|100%%", " 1|2026-03-01|00:00:00|100%"),
            (4_107_542_400, "%Y-%m-%d %j", "2100-03-01 060"),
            (-5, "%Y", "1970"),
        ] {
            assert_eq!(strftime(format, Some(unix_s)).unwrap(), expected);
        }
    }

    #[test]
    fn rfc3339_is_pythons() {
        // Python: datetime.utcfromtimestamp(t).isoformat() + "Z".
        assert_eq!(rfc3339(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(rfc3339(-1), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(i64::MAX), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn an_unknown_directive_is_an_error() {
        for format in ["%Q", "%", "%-"] {
            assert!(strftime(format, Some(0)).unwrap_err().to_string().contains("directive"), "{format}");
        }
    }

    #[test]
    fn days_follow_each_other() {
        let mut previous = civil_from_days(-1);
        for days in 0..200_000 {
            let today = civil_from_days(days);
            assert!(today > previous && (1..=31).contains(&today.2), "{days}: {previous:?} {today:?}");
            previous = today;
        }
    }
}
