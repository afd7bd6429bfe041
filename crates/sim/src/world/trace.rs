//! What happened, as text and as a number.

/// FNV-1a over everything that was noted.
pub(super) struct Trace {
    pub lines: Vec<String>,
    pub hash: u64,
}

impl Default for Trace {
    fn default() -> Self {
        Self { lines: Vec::new(), hash: 0xcbf2_9ce4_8422_2325 }
    }
}

impl Trace {
    pub fn line(&mut self, now: u64, text: &str) {
        let line = format!("{now} {text}");
        self.note(&line);
        tracing::info!("{line}");
        self.lines.push(line);
    }

    /// Counts in the hash only.
    pub fn note(&mut self, text: &str) {
        for byte in text.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
