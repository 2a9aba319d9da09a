//! Tables that set Milena beside Apache Kafka and beside what Milena must show.

use crate::kafka;
use std::fmt::Write as _;

#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    None,
    /// The factor by which Milena must be better.
    Factor(f64),
    /// What Milena may need at most, whatever Kafka needs.
    AtMost(f64),
}

#[derive(Debug)]
pub(super) struct Row {
    pub(super) what: String,
    pub(super) kafka: Option<f64>,
    pub(super) milena: Option<f64>,
    pub(super) unit: &'static str,
    pub(super) target: Target,
    /// What the cells of Kafka and of Milena show instead of the values that are compared.
    pub(super) shown: Option<[String; 2]>,
}

#[derive(Debug)]
pub(super) struct Table {
    pub(super) title: &'static str,
    /// Whether more is better, so that the factor is Milena's divided by Kafka's.
    pub(super) is_rate: bool,
    pub(super) rows: Vec<Row>,
}

/// Three digits that say something, thousands apart.
pub(super) fn number(value: f64) -> String {
    let decimals = match value.abs() {
        large if large >= 99.95 => 0,
        large if large >= 9.995 => 1,
        large if large >= 0.9995 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    grouped(whole) + fraction
}

pub(super) fn whole(count: u64) -> String {
    grouped(&count.to_string())
}

/// Thousands apart.
fn grouped(digits: &str) -> String {
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

impl Row {
    pub(super) fn factor(&self, is_rate: bool) -> Option<f64> {
        let (kafka, milena) = self.kafka.zip(self.milena)?;
        let factor = if is_rate { milena / kafka } else { kafka / milena };
        factor.is_finite().then_some(factor)
    }

    fn cell(&self, column: usize, value: Option<f64>) -> String {
        match (&self.shown, value) {
            (Some(shown), Some(_)) => shown.get(column).cloned().unwrap_or_default(),
            (None, Some(value)) => format!("{} {}", number(value), self.unit),
            (_, None) => "–".to_string(),
        }
    }

    fn target(&self, is_rate: bool) -> String {
        let (wanted, is_met) = match self.target {
            Target::None => return String::new(),
            Target::Factor(wanted) => (
                format!("≥ {wanted}"),
                self.factor(is_rate).map(|factor| factor >= wanted),
            ),
            Target::AtMost(most) => (
                format!("≤ {} {}", number(most), self.unit),
                self.milena.map(|milena| milena <= most),
            ),
        };
        match is_met {
            Some(true) => format!("{wanted}: met"),
            Some(false) => format!("{wanted}: **missed**"),
            None => wanted,
        }
    }
}

impl Table {
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let factor = if self.is_rate {
            "Milena ÷ Kafka"
        } else {
            "Kafka ÷ Milena"
        };
        let _ = writeln!(
            text,
            "| {} | Kafka {} | Milena | {factor} | target |\n| --- | ---: | ---: | ---: | --- |",
            self.title,
            kafka::VERSION
        );
        for row in &self.rows {
            let factor = row.factor(self.is_rate).map_or("–".to_string(), number);
            let _ = writeln!(
                text,
                "| {} | {} | {} | {factor} | {} |",
                row.what,
                row.cell(0, row.kafka),
                row.cell(1, row.milena),
                row.target(self.is_rate)
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_that_say_something() {
        let shown: Vec<String> = [
            0.0,
            0.0123,
            0.9996,
            3.456,
            41.04,
            99.96,
            1234.5,
            1_234_567.0,
            -1234.0,
        ]
        .into_iter()
        .map(number)
        .collect();
        assert_eq!(
            shown,
            [
                "0.000",
                "0.012",
                "1.00",
                "3.46",
                "41.0",
                "100",
                "1,234",
                "1,234,567",
                "-1,234"
            ]
        );
    }
}
