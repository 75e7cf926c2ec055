/// Logs one message: a [`Hook`](crate::Hook), a level, a class, and what the `defmt` macro of that level takes.
///
/// The class is `public` or `local`; without one the message is local. Arguments are evaluated before
/// the class applies, so what they log has its own. Firmware uses the short forms that
/// [`define_log_macros!`](crate::define_log_macros) makes.
///
/// ```ignore
/// svsm_log::log!(crate::log::Log, info, public, "{} CPUs", cpus);
/// ```
///
/// The crate that calls it needs `defmt` among its own dependencies.
#[macro_export]
macro_rules! log {
    ($hook:path, $level:ident, public, $($message:tt)+) => {
        $crate::__log!($hook, $level, Public, $($message)+)
    };
    ($hook:path, $level:ident, local, $($message:tt)+) => {
        $crate::__log!($hook, $level, Local, $($message)+)
    };
    ($hook:path, $level:ident, $($message:tt)+) => {
        $crate::__log!($hook, $level, Local, $($message)+)
    };
}

/// Binds the arguments to names (a fresh `argument` in each round, kept apart by hygiene).
#[doc(hidden)]
#[macro_export]
macro_rules! __log {
    ($hook:path, $level:ident, $class:ident, $format:literal $(, $argument:expr)* $(,)?) => {
        $crate::__log!(@ $hook, $level, $class, $format, [$($argument,)*] [])
    };
    (@ $hook:path, $level:ident, $class:ident, $format:literal,
     [$first:expr, $($rest:expr,)*] [$($bound:ident)*]) => {
        match &$first {
            argument => $crate::__log!(
                @ $hook, $level, $class, $format, [$($rest,)*] [$($bound)* argument]
            ),
        }
    };
    (@ $hook:path, $level:ident, $class:ident, $format:literal, [] [$($bound:ident)*]) => {
        $crate::logger::scoped::<$hook>($crate::Class::$class, || {
            ::defmt::$level!($format $(, *$bound)*)
        })
    };
}

/// Defines `error!`, `warn!`, `info!`, `debug!` and `trace!` over a [`Hook`](crate::Hook).
///
/// Their first word may be the class: `info!(public, "…")`, `info!(local, "…")`; without it a message is
/// local. Attributes before the hook go to each macro; a user library that offers them to programs says
/// `define_log_macros!(#[macro_export] svsm_user::log::Log)`. The path of the hook must be valid wherever
/// the macros are used.
#[macro_export]
macro_rules! define_log_macros {
    ($(#[$attribute:meta])* $hook:path) => {
        $crate::__define_log_macro!(($) [$(#[$attribute])*] $hook, error);
        $crate::__define_log_macro!(($) [$(#[$attribute])*] $hook, warn);
        $crate::__define_log_macro!(($) [$(#[$attribute])*] $hook, info);
        $crate::__define_log_macro!(($) [$(#[$attribute])*] $hook, debug);
        $crate::__define_log_macro!(($) [$(#[$attribute])*] $hook, trace);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __define_log_macro {
    // `$d` is a dollar sign, for the macro inside.
    (($d:tt) [$($attribute:tt)*] $hook:path, $level:ident) => {
        #[doc = concat!("Logs at level `", stringify!($level), "`; the first word may be `public` or `local`.")]
        $($attribute)*
        macro_rules! $level {
            ($d($d message:tt)+) => {
                $crate::log!($hook, $level, $d($d message)+)
            };
        }
    };
}

/// Defines the `#[defmt::global_logger]` of this binary over a [`Hook`](crate::Hook).
///
/// The crate that calls it needs `defmt` among its own dependencies.
#[macro_export]
macro_rules! define_defmt_logger {
    ($hook:path) => {
        const _: () = {
            #[::defmt::global_logger]
            struct SvsmLogger;

            // SAFETY: the functions behind it are safe, and so is the hook. A frame belongs to the CPU it
            // began on: the hook masks interrupts until its end, and those that cannot be masked nest.
            unsafe impl ::defmt::Logger for SvsmLogger {
                fn acquire() {
                    $crate::logger::acquire::<$hook>();
                }
                unsafe fn flush() {}
                unsafe fn release() {
                    $crate::logger::release::<$hook>();
                }
                unsafe fn write(bytes: &[u8]) {
                    $crate::logger::write::<$hook>(bytes);
                }
            }
        };
    };
}
