//! The pieces of which every page of a report is made: one document that asks nothing of anybody, readable in the dark, on a
//! phone and on paper. Pictures are [`plot`]'s. Pure; whatever comes from outside is escaped here.

pub mod plot;

use std::fmt::Write as _;

const STYLE: &str = include_str!("style.css");

/// A page being written.
#[derive(Debug)]
pub struct Page {
    out: String,
}

/// A cell of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    class: &'static str,
    /// Below it, smaller.
    remark: Option<String>,
}

impl Cell {
    /// Words.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), class: "", remark: None }
    }

    /// A number, which stands to the right.
    #[must_use]
    pub fn number(text: impl Into<String>) -> Self {
        Self { class: "n", ..Self::text(text) }
    }

    /// A number that ought to be zero.
    #[must_use]
    pub fn fault(count: u64) -> Self {
        Self { class: if count > 0 { "n bad" } else { "n" }, ..Self::text(grouped(count)) }
    }

    /// A word that says whether all is well.
    #[must_use]
    pub fn verdict(is_good: bool, text: impl Into<String>) -> Self {
        Self { class: if is_good { "good" } else { "bad" }, ..Self::text(text) }
    }

    /// The same with a remark below.
    #[must_use]
    pub fn with(self, remark: Option<String>) -> Self {
        Self { remark, ..self }
    }
}

impl Page {
    /// Begins one, with its verdict and a line below its title.
    #[must_use]
    pub fn new(title: &str, is_passed: bool, below: &str) -> Self {
        let (title, below) = (text(title), text(below));
        let (word, class) = if is_passed { ("✓ PASSED", "good") } else { ("✗ FAILED", "bad") };
        let mut out = String::new();
        let _ = write!(
            out,
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{title}: {word}</title>\
             <style>{STYLE}</style><div class=\"head\"><h1>{title}</h1><span class=\"verdict {class}\">{word}</span></div>\
             <p class=\"soft\">{below}</p>"
        );
        Self { out }
    }

    /// A part of it.
    pub fn section(&mut self, title: &str) {
        let _ = write!(self.out, "<h2>{}</h2>", text(title));
    }

    /// Some words.
    pub fn words(&mut self, words: &str) {
        let _ = write!(self.out, "<p>{}</p>", text(words));
    }

    /// What somebody must look at: nothing, if there is nothing.
    pub fn alarm(&mut self, title: &str, faults: &[String]) {
        if faults.is_empty() {
            return;
        }
        let _ = write!(self.out, "<div class=\"alarm\" role=\"alert\"><h2>{}</h2>", text(title));
        for fault in faults {
            let _ = write!(self.out, "<p>{}</p>", text(fault));
        }
        self.out.push_str("</div>");
    }

    /// Numbers at a glance: each with what it is.
    pub fn tiles(&mut self, tiles: &[(String, &str)]) {
        self.out.push_str("<div class=\"tiles\">");
        for (number, what) in tiles {
            let _ = write!(
                self.out,
                "<div class=\"tile\"><b>{}</b><span>{}</span></div>",
                text(number),
                text(what)
            );
        }
        self.out.push_str("</div>");
    }

    /// A table; nothing, if there are no rows. A head that begins with `>` stands to the right.
    pub fn table(&mut self, head: &[&str], rows: &[Vec<Cell>]) {
        if rows.is_empty() {
            return;
        }
        self.out.push_str("<div class=\"table\"><table><thead><tr>");
        for name in head {
            let _ = match name.strip_prefix('>') {
                Some(name) => write!(self.out, "<th class=\"n\">{}", text(name)),
                None => write!(self.out, "<th>{}", text(name)),
            };
        }
        self.out.push_str("</tr></thead><tbody>");
        for row in rows {
            self.out.push_str("<tr>");
            for Cell { text: words, class, remark } in row {
                let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
                let remark =
                    remark.as_ref().map_or_else(String::new, |why| format!("<br><em>{}</em>", text(why)));
                let _ = write!(self.out, "<td{class}>{}{remark}", text(words));
            }
            self.out.push_str("</tr>");
        }
        self.out.push_str("</tbody></table></div>");
    }

    /// A numbered list.
    pub fn list(&mut self, items: impl Iterator<Item = String>) {
        self.out.push_str("<ol>");
        for item in items {
            let _ = write!(self.out, "<li>{}</li>", text(&item));
        }
        self.out.push_str("</ol>");
    }

    /// Something that is only looked at by who wants to, line by line.
    pub fn details(&mut self, title: &str, lines: &[String]) {
        let lines: Vec<String> = lines.iter().map(|line| text(line)).collect();
        let _ = write!(
            self.out,
            "<details><summary>{}</summary><pre>{}</pre></details>",
            text(title),
            lines.join("\n")
        );
    }

    /// Pictures that share a time, one below the other. None of them has any, if its curves have no point.
    pub fn plots(&mut self, plots: &[plot::Plot<'_>]) {
        self.out.push_str("<div class=\"plots\">");
        plots.iter().for_each(|plot| plot.draw(&mut self.out));
        self.out.push_str("</div>");
    }

    /// A strip of what was done when.
    pub fn strip(&mut self, strip: &plot::Strip<'_>) {
        strip.draw(&mut self.out);
    }

    /// The whole document.
    #[must_use]
    pub fn end(mut self, below: &str) -> String {
        let _ = writeln!(self.out, "<footer>{}</footer></html>", text(below));
        self.out
    }
}

/// Text as it may stand anywhere in a page, also within quotes.
#[must_use]
pub fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for letter in raw.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// A count with its thousands apart.
#[must_use]
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Milliseconds, with as many digits as say something.
#[must_use]
pub fn ms(of: f64) -> String {
    match of {
        of if of >= 10_000.0 => format!("{:.1} s", of / 1e3),
        of if of >= 100.0 => format!("{of:.0} ms"),
        of if of >= 10.0 => format!("{of:.1} ms"),
        of => format!("{of:.2} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NASTY: &str = "<script>alert(\"x\")</script>'&";

    #[test]
    fn every_text_is_escaped() {
        let mut page = Page::new(NASTY, false, NASTY);
        page.section(NASTY);
        page.words(NASTY);
        page.alarm(NASTY, &[NASTY.to_owned()]);
        page.tiles(&[(NASTY.to_owned(), NASTY)]);
        let remarked = Cell::text(NASTY).with(Some(NASTY.to_owned()));
        page.table(&[NASTY, ">a<b"], &[vec![remarked, Cell::verdict(true, NASTY), Cell::number(NASTY)]]);
        page.list([NASTY.to_owned()].into_iter());
        page.details(NASTY, &[NASTY.to_owned()]);
        let shades = [plot::Shade { from_s: 0.0, to_s: 5.0, name: NASTY.to_owned(), is_fault: true }];
        let marks = [(2.0, NASTY.to_owned())];
        page.strip(&plot::Strip { until_s: 9.0, shades: &shades, marks: &marks });
        let curve = plot::Curve::by_step(NASTY, 1.0, &[Some(1.0), Some(2.0)]);
        page.plots(&[plot::Plot::over_time(NASTY, NASTY, 9.0, &shades).with(curve)]);
        let page = page.end(NASTY);
        assert!(!page.contains("<script") && !page.contains("alert(\""), "{page}");
        assert!(page.matches("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;&#39;&amp;").count() >= 18);
    }

    #[test]
    fn a_page_asks_nobody_for_anything() {
        let page = Page::new("a", true, "b").end("c");
        for outside in ["http:", "https:", "url(", "@import", "<script", "<link", "src="] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("prefers-color-scheme:dark") && page.contains("@media print"));
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.123, 12.34, 123.4, 12_345.0].map(ms), ["0.12 ms", "12.3 ms", "123 ms", "12.3 s"]);
    }
}
