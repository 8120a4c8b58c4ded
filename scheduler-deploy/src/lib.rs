//! scheduler-deploy.
