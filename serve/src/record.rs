// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is told of the server's work: a line of the access log for each request, and numbers for Prometheus.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How the access log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Words, for people.
    #[default]
    Text,
    /// A JSON object a line (docs/reference/schemas/access.json).
    Json,
}

/// One answered request.
#[derive(Debug, Clone)]
pub(crate) struct Line<'a> {
    pub(crate) peer: IpAddr,
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    pub(crate) range: Option<&'a str>,
    pub(crate) agent: Option<&'a str>,
    pub(crate) status: u16,
    /// Bytes of the body that were sent.
    pub(crate) sent: u64,
    /// Not all of it could be sent.
    pub(crate) is_cut: bool,
    pub(crate) took: Duration,
}

impl Line<'_> {
    /// The line with its end. What a client sent is escaped; its token is not in it.
    pub(crate) fn render(&self, format: LogFormat) -> String {
        let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
        match format {
            LogFormat::Text => {
                let milliseconds = self.took.as_secs_f64() * 1e3;
                let or_dash = |text: Option<&str>| text.map_or("-".into(), |text| text.escape_debug().to_string());
                format!(
                    "{time} {} {} {} {} {}{} {milliseconds:.1}ms range=\"{}\" agent=\"{}\"\n",
                    self.peer,
                    self.method.escape_debug(),
                    self.target.escape_debug(),
                    self.status,
                    self.sent,
                    if self.is_cut { " cut" } else { "" },
                    or_dash(self.range),
                    or_dash(self.agent),
                )
            }
            LogFormat::Json => {
                let line = serde_json::json!({
                    "schema": "evenkeel/access/1", "time": time, "peer": self.peer.to_string(), "method": self.method, "path": self.target,
                    "range": self.range, "agent": self.agent, "status": self.status, "sent": self.sent,
                    "cut": self.is_cut, "seconds": self.took.as_secs_f64(),
                });
                format!("{line}\n")
            }
        }
    }
}

/// Statuses that are counted each for itself; others count as 0.
const STATUSES: [u16; 16] = [200, 206, 304, 400, 401, 404, 405, 408, 412, 414, 416, 431, 500, 503, 505, 0];

/// Numbers since the start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    answers: [AtomicU64; STATUSES.len()],
    /// Bytes of bodies.
    pub(crate) sent: AtomicU64,
    /// Answers that were not sent to their end.
    pub(crate) cut: AtomicU64,
    /// Connections that were taken.
    pub(crate) accepted: AtomicU64,
    /// Connections that were turned away: too many.
    pub(crate) refused: AtomicU64,
    /// Connections that gave way to others while they waited.
    pub(crate) evicted: AtomicU64,
    /// Connections without a request: TLS failed, silence, or too slow.
    pub(crate) fruitless: AtomicU64,
    /// Lines of the access log that could not be written, or came faster than they could be.
    pub(crate) unlogged: AtomicU64,
    /// When secrets were read again, and could not be.
    pub(crate) reloads: AtomicU64,
    pub(crate) failed_reloads: AtomicU64,
}

impl Metrics {
    pub(crate) fn answered(&self, status: u16, sent: u64, is_cut: bool) {
        let at = STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len() - 1);
        self.answers[at].fetch_add(1, Ordering::Relaxed);
        self.sent.fetch_add(sent, Ordering::Relaxed);
        self.cut.fetch_add(u64::from(is_cut), Ordering::Relaxed);
    }

    /// The text that Prometheus reads, of so many connections that are open.
    pub(crate) fn render(&self, open: usize) -> String {
        let mut text = String::new();
        let mut one = |name: &str, kind: &str, help: &str, values: &[(String, u64)]| {
            let _ = write!(text, "# HELP evenkeel_serve_{name} {help}\n# TYPE evenkeel_serve_{name} {kind}\n");
            for (labels, value) in values {
                let _ = writeln!(text, "evenkeel_serve_{name}{labels} {value}");
            }
        };
        let answers: Vec<(String, u64)> = STATUSES
            .iter()
            .zip(&self.answers)
            .map(|(status, count)| (format!("{{status=\"{status}\"}}"), count.load(Ordering::Relaxed)))
            .collect();
        one("requests_total", "counter", "Answers by status; 0 for any other.", &answers);
        let open = u64::try_from(open).unwrap_or(u64::MAX);
        one("connections_open", "gauge", "Connections that are open.", &[(String::new(), open)]);
        for (name, help, count) in [
            ("sent_bytes_total", "Bytes of bodies.", &self.sent),
            ("cut_answers_total", "Answers that were not sent to their end.", &self.cut),
            ("connections_total", "Connections that were taken.", &self.accepted),
            ("refused_connections_total", "Connections turned away: too many.", &self.refused),
            ("evicted_connections_total", "Waiting connections that gave way to others.", &self.evicted),
            ("fruitless_connections_total", "Connections without a whole request.", &self.fruitless),
            (
                "unlogged_total",
                "Lines of the access log that were not written: it could not be, or too slowly.",
                &self.unlogged,
            ),
            ("reloads_total", "Times that certificates and tokens were read again.", &self.reloads),
            ("failed_reloads_total", "Times that they could not be; the old ones stay.", &self.failed_reloads),
        ] {
            one(name, "counter", help, &[(String::new(), count.load(Ordering::Relaxed))]);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_whatever_a_client_sends() {
        let line = Line {
            peer: IpAddr::from([127, 0, 0, 1]),
            method: "GET",
            target: "/x\n\u{1b}[2J\"",
            range: Some("bytes=0-0\" agent=\"curl"),
            agent: Some("a\"\r\nb"),
            status: 404,
            sent: 0,
            is_cut: false,
            took: Duration::from_millis(2),
        };
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = line.render(format);
            assert!(text.ends_with('\n') && !text.trim_end().contains(char::is_control), "{text:?}");
        }
        let text = line.render(LogFormat::Text);
        assert_eq!(text.matches(" agent=\"").count(), 1, "{text}: a client says what another one is");
        let json: serde_json::Value = serde_json::from_str(&line.render(LogFormat::Json)).unwrap();
        assert_eq!(json["path"], line.target);
    }

    #[test]
    fn every_number_has_its_kind() {
        let metrics = Metrics::default();
        metrics.answered(200, 5, false);
        metrics.answered(418, 0, true);
        let text = metrics.render(3);
        assert!(text.contains("evenkeel_serve_requests_total{status=\"200\"} 1\n"), "{text}");
        assert!(text.contains("evenkeel_serve_requests_total{status=\"0\"} 1\n"), "{text}");
        assert!(text.contains("evenkeel_serve_connections_open 3\n"), "{text}");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(
                value.parse::<u64>().is_ok() && text.contains(&format!("# TYPE {} ", name.split('{').next().unwrap()))
            );
        }
    }
}
