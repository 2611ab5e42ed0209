//! Numbers for people.

/// Bytes in decimal units, as disks are sold: `1.25 GB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// How many times smaller: `3.20x`; nothing to divide by is `-`.
pub fn ratio(logical: u64, stored: u64) -> String {
    if stored == 0 || logical == 0 {
        return "-".to_owned();
    }
    let ratio = logical as f64 / stored as f64;
    if ratio < 100.0 { format!("{ratio:.2}x") } else { format!("{ratio:.0}x") }
}

/// How long something takes, roughly: `40 s`, `12 min`, `3.5 h`.
pub fn duration(seconds: f64) -> String {
    match seconds {
        ..1.0 => "a second".to_owned(),
        ..90.0 => format!("{seconds:.0} s"),
        ..5400.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

/// Reads `96MiB`, `1.5GB`, `1048576`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is no size; write it like 96MiB"))?;
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(format!("{unit:?} is no unit; use KiB, MiB, GiB, kB, MB or GB")),
    };
    let size = number * factor as f64;
    if size.is_finite() && size < 1e18 { Ok(whole(size)) } else { Err(format!("{text:?} is too large")) }
}

/// The whole part of a number that is not negative; what does not fit is cut off at the limits.
#[expect(clippy::cast_possible_truncation, reason = "cutting off is what is asked for")]
pub fn whole(value: f64) -> u64 {
    value as u64
}

/// Rows in columns, the first left and the others right.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let cases =
            [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (65_536, "65.5 kB"), (999_999, "1.00 MB")];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(bytes(5 << 30), "5.37 GB");
        assert_eq!((ratio(10, 4), ratio(0, 4)), ("2.50x".to_owned(), "-".to_owned()));
    }

    #[test]
    fn durations_are_rough() {
        assert_eq!([0.2, 40.4, 720.0, 12_600.0].map(duration), ["a second", "40 s", "12 min", "3.5 h"]);
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(parse_size("96MiB"), Ok(96 << 20));
        assert_eq!(parse_size("1.5GB"), Ok(1_500_000_000));
        assert!(
            parse_size("fast").is_err() && parse_size("3 parsecs").is_err() && parse_size("1e99").is_err()
        );
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "10".to_owned()], vec!["long".to_owned(), "9".to_owned()]];
        assert_eq!(table(&rows), "a     10\nlong   9\n");
    }
}
