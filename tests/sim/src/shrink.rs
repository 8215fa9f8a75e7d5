//! Shrinking: the smallest part of a list that still fails.
//!
//! This is `ddmin` of Zeller and Hildebrandt ("Simplifying and isolating failure-inducing input", 2002): leave out ever smaller
//! portions for as long as what is left fails, too.

/// Leaves out of `list` what is not needed for `fails`, in at most `tries` attempts. `fails` is true of the whole list.
///
/// ```
/// use tickcast_sim::shrink::minimise;
///
/// let numbers: Vec<u32> = (0..100).collect();
/// let fails = |part: &[u32]| part.contains(&17) && part.contains(&60);
/// assert_eq!(minimise(numbers, 1000, fails), [17, 60]);
/// ```
pub fn minimise<T: Clone>(mut list: Vec<T>, tries: usize, mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let (mut left, mut portions) = (tries, 2);
    while list.len() > 1 && left > 0 {
        let length = list.len().div_ceil(portions);
        let mut start = 0;
        let mut shorter = false;
        while start < list.len() && left > 0 {
            let end = (start + length).min(list.len());
            let rest: Vec<T> = list[..start].iter().chain(&list[end..]).cloned().collect();
            left -= 1;
            if !rest.is_empty() && fails(&rest) {
                // What stood behind the portion stands in its place now.
                (list, shorter) = (rest, true);
            } else {
                start = end;
            }
        }
        if !shorter && length == 1 {
            break;
        }
        portions = if shorter { portions.max(2) } else { (portions * 2).min(list.len()) };
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what is left fails, no single item of it can be left out, and the order is kept.
    #[test]
    fn what_is_left_is_needed() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let list: Vec<u32> = (0..random.u32(2..300)).collect();
            let needed: Vec<u32> = list.iter().copied().filter(|_| random.u32(0..20) == 0).take(6).collect();
            if needed.is_empty() {
                continue;
            }
            let fails = |part: &[u32]| needed.iter().all(|item| part.contains(item));
            assert_eq!(minimise(list, usize::MAX, fails), needed, "seed {seed}");
        }
    }

    /// Goal: what matters by its order is found, too.
    #[test]
    fn the_order_is_kept() {
        let fails = |part: &[u32]| part.iter().position(|&item| item == 3).is_some_and(|at| part[at..].contains(&8));
        assert_eq!(minimise((0..100).collect(), usize::MAX, fails), [3, 8]);
    }

    /// Goal: it ends when its tries are used up, with something that fails.
    #[test]
    fn tries_are_bounded() {
        let mut asked = 0;
        let list = minimise((0..1000).collect(), 25, |part: &[u32]| {
            asked += 1;
            part.contains(&999)
        });
        assert!(asked <= 25 && list.contains(&999), "{asked}");
    }
}
