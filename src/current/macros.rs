//! `session!` and `user!`.

/// Creates a span that sets a session: the span and its descendants are exported with `session.id`.
///
/// The id may have any type that implements `Display`, or be a whole [`Session`](crate::Session). Without an id, the
/// macro generates one. Add fields after the id, as in the macros of `tracing`. Before the id you can write `target:`,
/// `parent:` and `level:` (default: `INFO`), in this order.
///
/// The span is named `session`. You can record its fields `session.id` and `user.id` later. If it started with an id,
/// it is exported with this one, and its descendants get the recorded id.
///
/// If a field contains an `.await` beside a `Session`, the future isn't `Send`: await before you call the macro.
///
/// Cost: about 0.5 µs more than another span.
///
/// ```
/// use tracing::{Instrument, Level};
/// use tracing_session::{Session, session};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tracing_session::Error> {
/// async { /* ... */ }.instrument(session!("chat-42")).await;
///
/// let span = session!(); // a new id
/// span.record("user.id", "u-7");
///
/// let known = Session::new("chat-42")?.with_user("u-7")?;
/// session!(known, channel = "web").in_scope(|| { /* ... */ });
///
/// let request = tracing::info_span!("request");
/// let span = session!(target: "chat", parent: &request, level: Level::DEBUG, 42_u64, channel = "web");
/// # Ok(()) }
/// ```
#[doc(alias = "using_session")]
#[macro_export]
macro_rules! session {
    ($($arguments:tt)*) => { $crate::__create_span!(session [] $($arguments)*) };
}

/// Creates a span that sets a user: the span and its descendants are exported with `user.id`, and inherit the session.
///
/// The id may have any type that implements `Display`. Fields, `target:`, `parent:` and `level:` are the same as in
/// [`session!`](crate::session!). The span is named `user`.
///
/// ```
/// use tracing_session::{session, user};
///
/// let _session = session!("chat-42").entered();
/// user!("u-7", plan = "pro").in_scope(|| { /* in the session, and with the user */ });
/// ```
#[doc(alias = "using_user")]
#[macro_export]
macro_rules! user {
    ($($arguments:tt)*) => { $crate::__create_span!(user [] $($arguments)*) };
}

/// Collects the options before the id, then creates the span. The field `tracing_session` identifies spans of the
/// macros: see `fields::MACRO_FIELD`.
#[doc(hidden)]
#[macro_export]
macro_rules! __create_span {
    ($kind:ident [] target: $target:expr, $($rest:tt)*) => {
        $crate::__create_span!($kind [[target: $target,]] $($rest)*)
    };
    ($kind:ident [$($options:tt)*] parent: $parent:expr, $($rest:tt)*) => {
        $crate::__create_span!($kind [$($options)* [parent: $parent,]] $($rest)*)
    };
    ($kind:ident [$([$($option:tt)*])*] level: $level:expr, $($rest:tt)*) => {
        $crate::__create_span!(@$kind [$($($option)*)* $level,] $($rest)*)
    };
    ($kind:ident [$([$($option:tt)*])*] $($rest:tt)*) => {
        $crate::__create_span!(@$kind [$($($option)*)* $crate::__private::Level::INFO,] $($rest)*)
    };
    (@session [$($options:tt)*]) => {
        $crate::__create_span!(@session [$($options)*] $crate::Session::generate())
    };
    // Mistakes: an expression doesn't start with a sigil, an assignment isn't an id, and all valid options are
    // collected above.
    (@$kind:ident [$($options:tt)*] % $($rest:tt)*) => {
        $crate::__create_span!(@sigil $kind $($rest)*)
    };
    (@$kind:ident [$($options:tt)*] ? $($rest:tt)*) => {
        $crate::__create_span!(@sigil $kind $($rest)*)
    };
    (@$kind:ident [$($options:tt)*] $field:tt $(.$part:tt)* = % $($rest:tt)*) => {
        $crate::__create_span!(@named $kind $($rest)*)
    };
    (@$kind:ident [$($options:tt)*] $field:tt $(.$part:tt)* = ? $($rest:tt)*) => {
        $crate::__create_span!(@named $kind $($rest)*)
    };
    (@$kind:ident [$($options:tt)*] $field:tt $(.$part:tt)* = $($rest:tt)*) => {
        $crate::__create_span!(@named $kind $($rest)*)
    };
    (@$kind:ident [$($options:tt)*] $option:ident : $($rest:tt)*) => {
        ::core::compile_error!(::core::concat!(
            "`", ::core::stringify!($option), ":` can't be here: `", ::core::stringify!($kind),
            "!` takes `target:`, `parent:` and `level:`, in this order, each followed by a comma, \
            and then the id without a name",
        ))
    };
    (@session [$($options:tt)*] $id:expr $(, $($fields:tt)*)?) => {
        $crate::__private::checked(match &$id {
            id => {
                #[allow(unused_imports)]
                use $crate::__private::Displayed as _;
                let (session_id, user_id, _passing) = $crate::__private::Argument(id).ids();
                $crate::__private::span!(
                    $($options)*
                    "session",
                    tracing_session = $crate::__private::Empty,
                    session.id = session_id.as_deref(),
                    user.id = user_id,
                    $($($fields)*)?
                )
            }
        })
    };
    (@user [$($options:tt)*]) => {
        ::core::compile_error!("`user!` needs an id: write `user!(\"u-7\")` or `user!(user_id)`")
    };
    (@user [$($options:tt)*] $id:expr $(, $($fields:tt)*)?) => {
        $crate::__private::checked(match &$id {
            id => $crate::__private::span!(
                $($options)*
                "user",
                tracing_session = $crate::__private::Empty,
                user.id = $crate::__private::text(id).as_str(),
                $($($fields)*)?
            ),
        })
    };
    (@named session $($rest:tt)*) => {
        ::core::compile_error!(::core::concat!(
            "`session!` takes the id first, without a name: write `session!(", ::core::stringify!($($rest)*),
            ")`. For fields beside a new id, write `session!(Session::generate(), ...)`",
        ))
    };
    (@named user $($rest:tt)*) => {
        ::core::compile_error!(::core::concat!(
            "`user!` takes the id first, without a name: write `user!(", ::core::stringify!($($rest)*), ")`",
        ))
    };
    (@sigil $kind:ident $($rest:tt)*) => {
        ::core::compile_error!(::core::concat!(
            "`", ::core::stringify!($kind), "!` formats the id with `Display`, without a sigil: write `",
            ::core::stringify!($kind), "!(", ::core::stringify!($($rest)*), ")`",
        ))
    };
}

/// The functions and types that the macros expand to.
#[doc(hidden)]
pub mod __private {
    pub use crate::base::setup::checked;
    use crate::layer::openers;
    use crate::scope::thread::Attached;
    use crate::session::Session;
    use std::borrow::Cow;
    use std::fmt::Display;
    pub use tracing::field::Empty;
    pub use tracing::{Level, span};

    /// The argument of `session!`: a `Session`, a text, or another type that implements `Display`. Method
    /// resolution prefers inherent methods, so [`Displayed`] is for the other types only.
    #[allow(clippy::exhaustive_structs)]
    #[allow(missing_debug_implementations, reason = "it would show an id")]
    pub struct Argument<T>(pub T);

    /// The ids that an argument sets, and a guard that passes the other values of a `Session` to the span.
    pub type Ids<'a, G> = (Option<Cow<'a, str>>, Option<&'a str>, G);

    /// For all types, so that the compiler finds the method and names the bound that the type doesn't satisfy.
    pub trait Displayed<'a> {
        type Id: ?Sized;

        fn ids(self) -> Ids<'a, ()>
        where
            Self::Id: MacroId;
    }

    impl<'a, T: ?Sized> Displayed<'a> for Argument<&'a T> {
        type Id = T;

        fn ids(self) -> Ids<'a, ()>
        where
            T: MacroId,
        {
            (Some(text(self.0).into()), None, ())
        }
    }

    macro_rules! ids_of {
        ($($argument:ty),* => $target:ty, $guard:ty, $ids:expr) => {$(
            impl<'a> Argument<&'a $argument> {
                #[inline]
                pub fn ids(self) -> Ids<'a, $guard> {
                    let ids: fn(&'a $target) -> Ids<'a, $guard> = $ids;
                    ids(self.0)
                }
            }
        )*};
    }
    ids_of!(str, &str, String, &String => str, (), |id| (Some(id.into()), None, ()));
    ids_of!(Session, &Session => Session, Passing, |session| {
        let id = session.id().map(Cow::Borrowed);
        (id, session.user_id(), Passing(openers::pass(session)))
    });

    /// Passes the values of a `Session` that no field can contain to the created span, until it is dropped.
    ///
    /// ```compile_fail,E0277
    /// # use tracing_session::{Session, session};
    /// fn needs_send<T: Send>(_: T) {}
    /// needs_send(async { session!(Session::generate(), number = async { 7 }.await) });
    /// ```
    #[derive(Debug)]
    #[must_use]
    pub struct Passing(#[expect(dead_code, reason = "it detaches when it is dropped")] Attached);

    /// `Display` with a better error message.
    #[diagnostic::on_unimplemented(
        message = "`{Self}` is not an id: pass a value that implements `Display`, for example a `&str`",
        note = "an id in an `Option` or a `Result` has to be unwrapped first: `session!(Session::new(id)?)`, for example",
        note = "write `session!(id.to_string())` or `session!(format!(\"{{id:?}}\"))` to format the id yourself"
    )]
    pub trait MacroId {
        fn text(&self) -> String;
    }

    #[diagnostic::do_not_recommend]
    impl<T: Display + ?Sized> MacroId for T {
        fn text(&self) -> String {
            self.to_string()
        }
    }

    pub fn text(id: &(impl MacroId + ?Sized)) -> String {
        id.text()
    }
}
