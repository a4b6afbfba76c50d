//! Whether micro-batches have room for the rows.

use crate::config::Config;
use crate::data::Dataset;
use crate::loss::Role;
use crate::session::{Event, Observer};

/// Warns where most rows are longer than `batch.micro_batch_tokens`, so that nearly each is computed
/// alone: seldom meant, and slow.
pub(super) fn warn_of_single_rows(config: &Config, dataset: &Dataset, observe: Observer) {
    let Some(most) = config.batch.micro_batch_tokens else {
        return;
    };
    let needs = config.loss.needs();
    let roles: Vec<Role> = Role::ALL
        .iter()
        .copied()
        .filter(|role| {
            [needs.all, needs.any, needs.optional]
                .concat()
                .contains(role)
        })
        .collect();
    let lengths = (0..dataset.len()).map(|row| dataset.tokens(row, &roles));
    if let Some(what) = warning(most, lengths.collect()) {
        observe(Event::Warning(&what));
    }
}

fn warning(most: usize, mut lengths: Vec<usize>) -> Option<String> {
    lengths.sort_unstable();
    let longer = lengths.len() - lengths.partition_point(|length| *length <= most);
    let median = *lengths.get(lengths.len() / 2)?;
    (2 * longer > lengths.len()).then(|| {
        format!(
            "batch.micro_batch_tokens is {most}, and {longer} of {} rows have more tokens ({median} at \
             the median): each of those is computed alone, which is slow",
            lengths.len()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_micro_batches_that_most_rows_do_not_fit_are_warned_of() {
        assert_eq!(warning(10, vec![10, 11, 9, 12]), None);
        assert_eq!(warning(10, Vec::new()), None);
        let text = warning(10, vec![87, 9, 50]).unwrap();
        assert!(
            text.starts_with(
                "batch.micro_batch_tokens is 10, and 2 of 3 rows have more tokens (50 at the median)"
            ),
            "{text}"
        );
    }
}
