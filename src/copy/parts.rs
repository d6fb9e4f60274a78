//! Which columns of a mapping depend on each other.
//!
//! A column and what it is computed from are one part, and so is whatever shares a column with it, either way. A part is
//! right or wrong as a whole: with `both` one part of a row may have been written on the new side and another on the old one.
//!
//! Columns are numbers here, given by who knows their names and how these are compared. Absent on purpose: keys, which tie
//! nothing together, so that they are left out by the caller.

/// A column and the columns that its value is computed from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tie {
    /// The column; `None` for one that is not there, which is in no part.
    pub column: Option<usize>,
    /// What it reads.
    pub reads: Vec<usize>,
}

/// Columns that depend on each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Places among the columns written on the new side.
    pub writes: Vec<usize>,
    /// Places among the columns written back.
    pub reverse: Vec<usize>,
    /// Every column in it, whether it is written or only read.
    pub columns: Vec<usize>,
}

/// Groups `count` columns by what is written on the new side and what is written back. Groups come in the order in which their
/// first column is written; a column that nothing ties is in none.
#[must_use]
pub fn groups(count: usize, writes: &[Tie], reverse: &[Tie]) -> Vec<Group> {
    // Each column has the smallest number of its group.
    let mut of: Vec<usize> = (0..count).collect();
    for tie in writes.iter().chain(reverse) {
        for read in &tie.reads {
            let Some(column) = tie.column else { continue };
            let (keep, gone) = (of[column].min(of[*read]), of[column].max(of[*read]));
            of.iter_mut().filter(|at| **at == gone).for_each(|at| *at = keep);
        }
    }
    let mut names: Vec<usize> = Vec::new();
    let mut found: Vec<Group> = Vec::new();
    let mut place = |found: &mut Vec<Group>, column: usize| {
        names.iter().position(|name| *name == of[column]).unwrap_or_else(|| {
            names.push(of[column]);
            let columns = (0..count).filter(|at| of[*at] == of[column]).collect();
            found.push(Group { columns, ..Group::default() });
            found.len() - 1
        })
    };
    for (at, tie) in writes.iter().enumerate() {
        if let Some(column) = tie.column {
            let group = place(&mut found, column);
            found[group].writes.push(at);
        }
    }
    for (at, tie) in reverse.iter().enumerate() {
        if let Some(column) = tie.column {
            let group = place(&mut found, column);
            found[group].reverse.push(at);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tie(column: usize, reads: &[usize]) -> Tie {
        Tie { column: Some(column), reads: reads.to_vec() }
    }

    fn group(writes: &[usize], reverse: &[usize], columns: &[usize]) -> Group {
        Group { writes: writes.to_vec(), reverse: reverse.to_vec(), columns: columns.to_vec() }
    }

    #[test]
    fn what_shares_a_column_is_one_part() {
        // Old columns 0 to 3, new ones 4 to 7: 4 = f(0), 5 = f(1, 2), 6 = a constant; 0 = g(4), 2 = g(5).
        let writes = [tie(4, &[0]), tie(5, &[1, 2]), tie(6, &[])];
        let found = groups(8, &writes, &[tie(0, &[4]), tie(2, &[5])]);
        let expected =
            [group(&[0], &[0], &[0, 4]), group(&[1], &[1], &[1, 2, 5]), group(&[2], &[], &[6])];
        assert_eq!(found, expected);
        // A column written back from two new ones joins them.
        let found = groups(8, &writes, &[tie(3, &[4, 5])]);
        let expected = [group(&[0, 1], &[0], &[0, 1, 2, 3, 4, 5]), group(&[2], &[], &[6])];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_column_that_is_not_there_ties_nothing() {
        let missing = Tie { column: None, reads: vec![0] };
        assert_eq!(groups(2, &[missing, tie(1, &[0])], &[]), [group(&[1], &[], &[0, 1])]);
        assert_eq!(groups(0, &[], &[]), []);
    }
}
