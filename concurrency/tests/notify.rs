//! The `Notify` of the models does what tokio's does.

use std::future::Future;
use std::pin::pin;
use std::task::Context;

use futures::task::noop_waker;

/// The same sentences about both.
macro_rules! sentences {
    ($($module:ident: $notify:ty, $in_its_world:expr;)*) => {$(
        mod $module {
            use super::*;

            type Notify = $notify;

            fn is_ready(future: std::pin::Pin<&mut impl Future<Output = ()>>) -> bool {
                future.poll(&mut Context::from_waker(&noop_waker())).is_ready()
            }

            #[test]
            fn without_anybody_the_next_does_not_wait_and_the_one_after_does() {
                $in_its_world(|| {
                    let notify = Notify::default();
                    notify.notify_one();
                    notify.notify_one();
                    assert!(is_ready(pin!(notify.notified())));
                    assert!(!is_ready(pin!(notify.notified())));
                });
            }

            #[test]
            fn the_longest_waiting_is_told() {
                $in_its_world(|| {
                    let notify = Notify::default();
                    let (mut first, mut second) = (pin!(notify.notified()), pin!(notify.notified()));
                    assert!(!is_ready(first.as_mut()) && !is_ready(second.as_mut()));
                    notify.notify_one();
                    assert!(!is_ready(second.as_mut()) && is_ready(first.as_mut()));
                    notify.notify_one();
                    assert!(is_ready(second.as_mut()));
                    assert!(!is_ready(pin!(notify.notified())));
                });
            }

            #[test]
            fn who_was_told_and_leaves_passes_it_on() {
                $in_its_world(|| {
                    let notify = Notify::default();
                    let mut second = pin!(notify.notified());
                    {
                        let mut first = Box::pin(notify.notified());
                        assert!(!is_ready(first.as_mut()) && !is_ready(second.as_mut()));
                        notify.notify_one();
                    }
                    assert!(is_ready(second.as_mut()));
                });
            }

            #[test]
            fn who_leaves_untold_is_not_told() {
                $in_its_world(|| {
                    let notify = Notify::default();
                    assert!(!is_ready(pin!(notify.notified())));
                    notify.notify_one();
                    assert!(is_ready(pin!(notify.notified())));
                });
            }
        }
    )*};
}

sentences! {
    tokios: tokio::sync::Notify, (|sentence: fn()| sentence());
    the_models: scheduler_concurrency::Notify, (|sentence: fn()| shuttle::check_random(sentence, 1));
}
