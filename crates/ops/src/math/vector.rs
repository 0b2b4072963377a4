//! The functions of [`super`] over sixteen lanes: the same operations in the same order.

use super::{EXP_HIGH, EXP_LOW, EXP_Q, LN2_HIGH, LN2_LOW, LOG2_E};
use crate::lanes::Lanes;

/// [`super::exp`] of every lane.
///
/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
pub(crate) unsafe fn exp_lanes<V: Lanes>(x: V) -> V {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        // `min` and `max` return their second operand when the comparison fails, so NaN passes through.
        let x = V::splat(EXP_LOW).max(V::splat(EXP_HIGH).min(x));
        let n = x.mul(V::splat(LOG2_E)).round();
        let r = n.fma(V::splat(-LN2_HIGH), x);
        let r = n.fma(V::splat(-LN2_LOW), r);
        let [q0, q1, q2, q3, q4] = EXP_Q;
        let q = V::splat(q4).fma(r, V::splat(q3));
        let q = q.fma(r, V::splat(q2));
        let q = q.fma(r, V::splat(q1));
        let q = q.fma(r, V::splat(q0));
        let p = r.mul(r).fma(q, r).add(V::splat(1.0));
        p.scale_pow2(n)
    }
}

/// [`super::silu`] of every lane.
///
/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
pub(crate) unsafe fn silu_lanes<V: Lanes>(x: V) -> V {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let e = exp_lanes::<V>(x.abs().mul(V::splat(-1.0)));
        let numerator = x.select_negative(x.mul(e), x);
        numerator.div(V::splat(1.0).add(e))
    }
}

/// The derivative of silu of every lane: σ + x · σ · (1 − σ), σ = sigmoid(x).
///
/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
pub(crate) unsafe fn dsilu_lanes<V: Lanes>(x: V) -> V {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let (e, one) = (exp_lanes::<V>(x.abs().mul(V::splat(-1.0))), V::splat(1.0));
        let sum = one.add(e);
        let sigmoid = x.select_negative(e, one).div(sum);
        let rest = x.select_negative(one, e).div(sum); // 1 − σ without cancellation
        x.mul(sigmoid).fma(rest, sigmoid)
    }
}
