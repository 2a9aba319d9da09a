//! Pictures as plain SVG: bars for ratios, panels of lines for curves and for what happens over time. Their colours follow
//! the reader's light or dark scheme.

use super::table::number;
use std::fmt::Write as _;

const STYLE: &str = "<style>\
text{font:13px system-ui,sans-serif;fill:#1f2328}\
.small{font-size:11px;fill:#59636e}\
.line{stroke:#d1d9e0;stroke-width:1}\
.target{stroke:#1f2328;stroke-width:2}\
.bar{fill:#2f6feb}.short{fill:#d1592b}\
polyline{fill:none;stroke-width:2}\
.s0{stroke:#d1592b}.s1{stroke:#2f6feb}.f0{fill:#d1592b}.f1{fill:#2f6feb}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}.line{stroke:#3d444d}.target{stroke:#e6edf3}}\
</style>";

const BAR_LABEL: f64 = 430.0;
const BAR_WIDTH: f64 = 330.0;
const BAR_ROW: f64 = 30.0;
const BAR_HEAD: f64 = 40.0;

const PANEL_WIDTH: f64 = 410.0;
const PANEL_HEIGHT: f64 = 200.0;
/// More points than these are labelled at the ends alone.
const MOST_LABELS: usize = 6;
const PANELS_PER_ROW: usize = 2;
/// Around the lines of a panel: left, top, right, bottom.
const MARGIN: (f64, f64, f64, f64) = (56.0, 44.0, 16.0, 28.0);

/// How often Kafka's CPU time Milena's fits into it.
#[derive(Debug)]
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) factor: f64,
    pub(super) target: Option<f64>,
}

#[derive(Debug)]
pub(super) struct Series {
    pub(super) name: &'static str,
    pub(super) points: Vec<(f64, f64)>,
}

#[derive(Debug)]
pub(super) struct Panel {
    pub(super) title: String,
    /// Equal steps to the right multiply.
    pub(super) is_log: bool,
    pub(super) series: Vec<Series>,
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn document(width: f64, height: f64, content: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\">\n{STYLE}\n{content}</svg>\n"
    )
}

pub(super) fn bars(bars: &[Bar]) -> String {
    let longest = bars
        .iter()
        .flat_map(|bar| [bar.factor, bar.target.unwrap_or(0.0)])
        .fold(1.0, f64::max);
    let at = |factor: f64| BAR_LABEL + factor / longest * BAR_WIDTH;
    let mut content = String::from(
        "<text x=\"8\" y=\"18\">Broker's CPU time: Kafka ÷ Milena</text>\n\
         <text class=\"small\" x=\"8\" y=\"33\">longer is better; the mark is the target</text>\n",
    );
    let mut y = BAR_HEAD;
    for bar in bars {
        let is_short = bar.target.is_some_and(|target| bar.factor < target);
        let class = if is_short { "short" } else { "bar" };
        let middle = y + BAR_ROW * 0.65;
        let _ = writeln!(
            content,
            "<text x=\"{:.0}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>",
            BAR_LABEL - 8.0,
            escaped(&bar.name)
        );
        let _ = writeln!(
            content,
            "<rect class=\"{class}\" x=\"{BAR_LABEL:.0}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            y + 5.0,
            at(bar.factor) - BAR_LABEL,
            BAR_ROW - 10.0
        );
        let right = at(bar.factor.max(bar.target.unwrap_or(0.0))) + 8.0;
        let _ = writeln!(
            content,
            "<text x=\"{right:.1}\" y=\"{middle:.1}\">{}</text>",
            number(bar.factor)
        );
        if let Some(target) = bar.target {
            let _ = writeln!(
                content,
                "<line class=\"target\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
                y + 2.0,
                y + BAR_ROW - 2.0,
                x = at(target)
            );
        }
        y += BAR_ROW;
    }
    document(BAR_LABEL + BAR_WIDTH + 60.0, y + 8.0, &content)
}

#[allow(clippy::cast_precision_loss)]
pub(super) fn panels(panels: &[Panel]) -> String {
    let mut content = String::new();
    for (index, panel) in panels.iter().enumerate() {
        let left = (index % PANELS_PER_ROW) as f64 * PANEL_WIDTH;
        let top = (index / PANELS_PER_ROW) as f64 * PANEL_HEIGHT;
        let _ = writeln!(
            content,
            "<g transform=\"translate({left:.0},{top:.0})\">\n{}</g>",
            draw(panel)
        );
    }
    let rows = panels.len().div_ceil(PANELS_PER_ROW) as f64;
    document(PANEL_WIDTH * PANELS_PER_ROW as f64, PANEL_HEIGHT * rows, &content)
}

/// One panel at the origin. Its vertical axis begins at 0, so that what is flat looks flat.
fn draw(panel: &Panel) -> String {
    let (left, top, right, bottom) = MARGIN;
    // A logarithm has no 0; one record is as good as none.
    let x_of = |x: f64| if panel.is_log { x.max(1.0).log10() } else { x };
    let all = || panel.series.iter().flat_map(|series| &series.points);
    let x_min = all().map(|(x, _)| x_of(*x)).fold(f64::INFINITY, f64::min);
    let x_max = all().map(|(x, _)| x_of(*x)).fold(f64::NEG_INFINITY, f64::max);
    let y_max = all().map(|(_, y)| *y).fold(f64::MIN_POSITIVE, f64::max);
    let x_span = if x_max > x_min { x_max - x_min } else { 1.0 };
    let x_at = |x: f64| left + (x_of(x) - x_min) / x_span * (PANEL_WIDTH - left - right);
    let floor = PANEL_HEIGHT - bottom;
    let y_at = |y: f64| floor - y.max(0.0) / y_max * (floor - top);

    let mut text = format!("<text x=\"8\" y=\"18\">{}</text>\n", escaped(&panel.title));
    for y in [0.0, y_max / 2.0, y_max] {
        let _ = writeln!(
            text,
            "<line class=\"line\" x1=\"{left:.0}\" x2=\"{:.0}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"small\" x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            PANEL_WIDTH - right,
            left - 6.0,
            y_at(y) + 4.0,
            number(y),
            at = y_at(y),
        );
    }
    let mut label = left;
    for (index, series) in panel.series.iter().enumerate() {
        let color = index % 2;
        let points: Vec<String> = series
            .points
            .iter()
            .map(|(x, y)| format!("{:.1},{:.1}", x_at(*x), y_at(*y)))
            .collect();
        let _ = writeln!(
            text,
            "<polyline class=\"s{color}\" points=\"{}\"/>",
            points.join(" ")
        );
        if panel.series.len() > 1 {
            let _ = writeln!(
                text,
                "<rect class=\"f{color}\" x=\"{label:.0}\" y=\"26\" width=\"10\" height=\"10\"/>\
                 <text class=\"small\" x=\"{:.0}\" y=\"35\">{}</text>",
                label + 14.0,
                series.name
            );
            label += 80.0;
        }
    }
    let longest = panel.series.iter().max_by_key(|series| series.points.len());
    text + &x_labels(longest, &x_at)
}

/// The values to the right: each of a few points, or the first and last of many.
fn x_labels(longest: Option<&Series>, x_at: &dyn Fn(f64) -> f64) -> String {
    let points = longest.map_or(&[][..], |series| &series.points);
    let y = PANEL_HEIGHT - 10.0;
    let label = |(x, _): &(f64, f64), anchor: &str| {
        let shown = if *x >= 1e6 {
            format!("{}M", x / 1e6)
        } else {
            format!("{x:.0}")
        };
        format!(
            "<text class=\"small\" x=\"{:.1}\" y=\"{y:.0}\" text-anchor=\"{anchor}\">{shown}</text>\n",
            x_at(*x)
        )
    };
    if points.len() <= MOST_LABELS {
        return points.iter().map(|point| label(point, "middle")).collect();
    }
    let ends = points.first().zip(points.last());
    ends.map_or(String::new(), |(first, last)| {
        label(first, "start") + &label(last, "end")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_that_misses_its_target_looks_different() {
        let bar = |factor| Bar {
            name: "fast & <small>".to_string(),
            factor,
            target: Some(3.0),
        };
        let svg = bars(&[bar(2.9), bar(3.1)]);
        assert_eq!(svg.matches("class=\"short\"").count(), 1);
        assert_eq!(svg.matches("class=\"bar\"").count(), 1);
        assert!(svg.contains("fast &amp; &lt;small>"));
    }

    #[test]
    fn a_panel_without_points_or_with_one_has_no_endless_number() {
        for points in [vec![], vec![(0.0, 0.0)], vec![(0.0, 1.0), (10.0, 2.0)]] {
            let panel = Panel {
                title: "a title".to_string(),
                is_log: true,
                series: vec![Series {
                    name: "Milena",
                    points,
                }],
            };
            let svg = panels(&[panel]);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
