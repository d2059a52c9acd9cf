//! Statuses of answers by their class: a closed list for metrics, whatever number an upstream makes up.

/// The class of an answer. The label `code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusClass {
    /// An upgraded connection.
    Informational,
    Success,
    Redirection,
    ClientError,
    ServerError,
    /// A number that HTTP gives no meaning to.
    Other,
    /// The client went away before there was one.
    None,
}

/// How many classes there are.
pub const CLASSES: usize = 7;

impl StatusClass {
    pub const ALL: [StatusClass; CLASSES] = [
        StatusClass::Informational,
        StatusClass::Success,
        StatusClass::Redirection,
        StatusClass::ClientError,
        StatusClass::ServerError,
        StatusClass::Other,
        StatusClass::None,
    ];

    /// That of an answer with `status`, which is its last: what says "more will come" is none.
    pub fn of(status: Option<u16>) -> Self {
        match status {
            None | Some(100 | 102..=199) => StatusClass::None,
            Some(101) => StatusClass::Informational,
            Some(200..=299) => StatusClass::Success,
            Some(300..=399) => StatusClass::Redirection,
            Some(400..=499) => StatusClass::ClientError,
            Some(500..=599) => StatusClass::ServerError,
            Some(_) => StatusClass::Other,
        }
    }

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            StatusClass::Informational => "1xx",
            StatusClass::Success => "2xx",
            StatusClass::Redirection => "3xx",
            StatusClass::ClientError => "4xx",
            StatusClass::ServerError => "5xx",
            StatusClass::Other => "other",
            StatusClass::None => "none",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_index_their_counters() {
        for (index, class) in StatusClass::ALL.iter().enumerate() {
            assert_eq!(*class as usize, index);
        }
    }

    #[test]
    fn every_status_has_a_class() {
        for (status, class) in [
            (None, "none"),
            (Some(0), "other"),
            (Some(100), "none"),
            (Some(101), "1xx"),
            (Some(103), "none"),
            (Some(200), "2xx"),
            (Some(299), "2xx"),
            (Some(304), "3xx"),
            (Some(429), "4xx"),
            (Some(500), "5xx"),
            (Some(599), "5xx"),
            (Some(600), "other"),
            (Some(999), "other"),
        ] {
            assert_eq!(StatusClass::of(status).as_str(), class, "{status:?}");
        }
    }
}
