//! The output: tables for people, JSON for machines, a page with plots.

mod data;
mod markdown;
mod page;
mod plots;
mod quantity;
mod text;

pub(crate) use data::{Chart, Distribution, Figure, NotMeasured, Report, Series};
