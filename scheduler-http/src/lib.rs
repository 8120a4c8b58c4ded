//! scheduler-http.
