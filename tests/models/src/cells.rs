//! Bytes that loom watches: two threads that are at the same ones at a time, of which one writes, are found.

#![allow(unsafe_code, reason = "loom's cells are shared among threads to see whether that goes well")]

use std::ops::Range;
use std::sync::Arc;

use loom::cell::UnsafeCell;

use crate::stream::buffers::Divisible;
use crate::stream::slots::Numbered;

/// A cell, of which nothing is read or written but loom told that it is.
struct Cell(UnsafeCell<()>);

// SAFETY: there is nothing in it; that threads are at it at the same time is what loom finds.
unsafe impl Sync for Cell {}

/// Some bytes of a buffer or a slot, in the daemon's sense: their holder may write them.
pub(crate) struct Cells {
    number: u32,
    cells: Arc<[Cell]>,
    range: Range<usize>,
}

/// The same bytes, for a reader only: a client, or the network.
#[derive(Clone)]
pub(crate) struct Seen(Arc<[Cell]>);

impl Cells {
    pub(crate) fn new(number: u32, len: usize) -> Cells {
        Cells { number, cells: (0..len).map(|_| Cell(UnsafeCell::new(()))).collect(), range: 0..len }
    }

    pub(crate) fn write(&mut self) {
        self.cells[self.range.clone()].iter().for_each(|cell| cell.0.with_mut(|_| {}));
    }

    pub(crate) fn read(&self) {
        self.cells[self.range.clone()].iter().for_each(|cell| cell.0.with(|_| {}));
    }

    pub(crate) fn len(&self) -> usize {
        self.range.len()
    }

    /// The memory as its client maps it.
    pub(crate) fn seen(&self) -> Seen {
        Seen(Arc::clone(&self.cells))
    }
}

impl Seen {
    pub(crate) fn read(&self) {
        self.0.iter().for_each(|cell| cell.0.with(|_| {}));
    }
}

impl Numbered for Cells {
    fn number(&self) -> u32 {
        self.number
    }
}

impl Divisible for Cells {
    fn split_off(&mut self, at: usize) -> Cells {
        assert!(at <= self.len());
        let rest = self.range.start + at..self.range.end;
        self.range.end = rest.start;
        Cells { number: self.number, cells: Arc::clone(&self.cells), range: rest }
    }

    fn unsplit(&mut self, rest: Cells) {
        assert!(Arc::ptr_eq(&self.cells, &rest.cells) && self.range.end == rest.range.start, "in order");
        self.range.end = rest.range.end;
    }
}
