use reqwest::Response;
use serde_json::Value;

/// One server-sent event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// `task` or `end`.
    pub name: String,
    /// Its data as JSON.
    pub data: Value,
}

/// A stream of server-sent events.
#[derive(Debug)]
pub struct Events {
    response: Response,
    unread: Vec<u8>,
}

impl Events {
    pub(crate) fn new(response: Response) -> Self {
        Self {
            response,
            unread: Vec::new(),
        }
    }

    /// The next event; `None` at the end.
    ///
    /// # Errors
    ///
    /// The stream broke off, or its data is no JSON.
    pub async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            while let Some(end) = self.unread.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.unread.drain(..end + 2).collect();
                if let Some(event) = parse(std::str::from_utf8(&block)?)? {
                    return Ok(Some(event));
                }
            }
            match self.response.chunk().await? {
                Some(bytes) => self.unread.extend_from_slice(&bytes),
                None => return Ok(None),
            }
        }
    }
}

/// A block of lines; `None` for comments, which keep the connection alive.
fn parse(block: &str) -> anyhow::Result<Option<Event>> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
    let Some(data) = field("data: ") else {
        return Ok(None);
    };
    Ok(Some(Event {
        name: field("event: ").unwrap_or("message").to_owned(),
        data: serde_json::from_str(data)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_no_events() {
        assert_eq!(parse(":\n\n").unwrap(), None);
        let event = parse("event: end\ndata: {\"reason\":\"finished\"}\n\n")
            .unwrap()
            .unwrap();
        assert_eq!(
            (event.name.as_str(), event.data["reason"].as_str()),
            ("end", Some("finished"))
        );
    }
}
