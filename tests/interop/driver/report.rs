//! The cells, as a table and as JSON.

use crate::Channel;
use crate::cases;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// One case of one pair on one kind of channel.
#[derive(Serialize)]
pub(crate) struct Cell {
    pub(crate) server: String,
    pub(crate) client: String,
    pub(crate) channel: &'static str,
    pub(crate) case: String,
    pub(crate) ok: bool,
}

#[derive(Serialize)]
pub(crate) struct Report {
    cells: Vec<Cell>,
}

impl Report {
    pub(crate) fn new(cells: Vec<Cell>) -> Self {
        Self { cells }
    }

    pub(crate) fn passed(&self) -> usize {
        self.cells.iter().filter(|cell| cell.ok).count()
    }

    pub(crate) fn failed(&self) -> usize {
        self.cells.len() - self.passed()
    }

    /// One table for each kind of channel; a row is a server with a client.
    pub(crate) fn print(&self) {
        for channel in Channel::ALL {
            let cells: Vec<_> =
                self.cells.iter().filter(|cell| cell.channel == channel.name()).collect();
            if !cells.is_empty() {
                println!("\n{}", table(channel, &cells));
            }
        }
        println!();
    }
}

fn table(channel: Channel, cells: &[&Cell]) -> Table {
    let cases: Vec<&str> = cases::names(channel).collect();
    let mut table = Table::new();
    let first = format!("{}:\nserver → client", channel.name());
    let heads = cases.iter().map(|case| match case.strip_prefix("roundtrips ") {
        Some(size) => format!("{size}\nbytes"),
        None => case.replace([' ', '-'], "\n"),
    });
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(std::iter::once(first).chain(heads));
    // The cells of a pair follow each other.
    for row in cells.chunk_by(|a, b| (&a.server, &a.client) == (&b.server, &b.client)) {
        let mark = |case: &&str| match row.iter().find(|cell| cell.case == **case) {
            Some(cell) if cell.ok => "ok",
            Some(_) => "RED",
            None => "",
        };
        let name = format!("{} → {}", row[0].server, row[0].client);
        let marks = cases.iter().map(mark).map(str::to_owned);
        table.add_row(std::iter::once(name).chain(marks));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Center);
    }
    table
}
