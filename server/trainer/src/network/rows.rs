//! The state of members as rows of numbers.

use tch::Tensor;

/// Everything that makes a member what it is, one row per member: float32 `[members, numbers]`.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) parameters: Tensor,
    pub(crate) momentum: Tensor,
    pub(crate) statistics: Tensor,
}

impl Rows {
    /// The tensors, each made by its name.
    ///
    /// # Errors
    /// The first of `tensor`.
    pub(crate) fn by_name<E>(tensor: impl Fn(&'static str) -> Result<Tensor, E>) -> Result<Rows, E> {
        Ok(Rows {
            parameters: tensor("parameters")?,
            momentum: tensor("momentum")?,
            statistics: tensor("statistics")?,
        })
    }

    /// The tensors with their names.
    pub(crate) fn named(&self) -> [(&'static str, &Tensor); 3] {
        [("parameters", &self.parameters), ("momentum", &self.momentum), ("statistics", &self.statistics)]
    }

    /// Rows one below the other.
    pub(crate) fn cat(rows: &[Rows]) -> Rows {
        let cat = |of: fn(&Rows) -> &Tensor| Tensor::cat(&rows.iter().map(of).collect::<Vec<_>>(), 0);
        Rows {
            parameters: cat(|rows| &rows.parameters),
            momentum: cat(|rows| &rows.momentum),
            statistics: cat(|rows| &rows.statistics),
        }
    }

    /// Overwrites one row by the only one of `other`.
    pub(crate) fn set(&mut self, row: i64, other: &Rows) {
        for ((_, tensor), (_, other)) in self.named().into_iter().zip(other.named()) {
            tensor.narrow(0, row, 1).copy_(other);
        }
    }

    /// Each tensor changed in the same way.
    pub(crate) fn map(&self, change: impl Fn(&Tensor) -> Tensor) -> Rows {
        Rows {
            parameters: change(&self.parameters),
            momentum: change(&self.momentum),
            statistics: change(&self.statistics),
        }
    }
}
