//! The rules of the router, one by one.

use super::*;

fn router(num_experts: usize) -> Router {
    Router {
        bias: vec![0.0; num_experts],
        num_chosen: 2,
        num_groups: 1,
        num_groups_kept: 1,
        normalise: false,
        scale: 1.0,
    }
}

fn experts(chosen: &[Chosen]) -> Vec<usize> {
    chosen.iter().map(|c| c.expert).collect()
}

#[test]
fn takes_the_best_in_index_order_and_breaks_ties_by_index() {
    let r = router(4);
    assert_eq!(experts(&route(&r, &[0.0, 3.0, 1.0, 3.0])), [1, 3]);
    assert_eq!(experts(&route(&r, &[1.0, 1.0, 1.0, 1.0])), [0, 1]);
}

#[test]
fn bias_decides_the_choice_but_not_the_weight() {
    let mut r = router(3);
    r.bias[0] = 10.0;
    let chosen = route(&r, &[-2.0, 1.0, 0.5]);
    assert_eq!(experts(&chosen), [0, 1]);
    assert_eq!(chosen[0].weight, sigmoid(-2.0));
}

#[test]
fn groups_are_limited_by_the_sum_of_their_two_best() {
    let mut r = router(6);
    (r.num_groups, r.num_groups_kept) = (3, 1);
    // Group 0 has the best single expert, group 2 the best pair.
    assert_eq!(experts(&route(&r, &[5.0, -9.0, 0.0, 0.0, 2.0, 2.0])), [4, 5]);
}

#[test]
fn weights_are_normalised_and_scaled() {
    let mut r = router(3);
    (r.normalise, r.scale) = (true, 2.5);
    let chosen = route(&r, &[1.0, 0.0, -1.0]);
    let sum = sigmoid(1.0) + sigmoid(0.0) + 1e-20;
    assert_eq!(chosen[0].weight, sigmoid(1.0) / sum * 2.5);
    assert!((chosen[0].weight + chosen[1].weight - 2.5).abs() < 1e-6);
}
