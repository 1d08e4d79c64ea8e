/// Creates a span that sets a session: the span and its descendants are exported with `session.id`.
///
/// The id may be anything that implements `Display`, or a whole [`Session`](crate::Session). Without an id, the
/// macro generates one. Further fields follow as in `tracing`'s own macros. Before the id there may be `target:`,
/// `parent:` and `level:` (default: `INFO`), in this order. The span is named `session`, and you can record its fields
/// `session.id` and `user.id` later. A span that started with an id keeps it, and its descendants get the recorded one.
///
/// Cost: see [`SessionLayer`](crate::SessionLayer).
///
/// If a field beside a `Session` awaits, the future isn't `Send`: await before you call the macro.
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
/// session!(target: "chat", parent: &request, level: Level::DEBUG, 42_u64, channel = "web");
/// # Ok(()) }
/// ```
#[macro_export]
macro_rules! session {
    ($($given:tt)*) => { $crate::__open!(session [] $($given)*) };
}

/// Creates a span that sets a user: the span and its descendants are exported with `user.id`, and they
/// still inherit the session.
///
/// The id may be anything that implements `Display`. Fields, `target:`, `parent:` and `level:` are the same as for
/// [`session!`](crate::session). The span is named `user`.
///
/// ```
/// use tracing_session::{session, user};
///
/// let _session = session!("chat-42").entered();
/// user!("u-7", plan = "pro").in_scope(|| { /* in the session, and with the user */ });
/// ```
#[macro_export]
macro_rules! user {
    ($($given:tt)*) => { $crate::__open!(user [] $($given)*) };
}

/// Takes the options off the front, then makes the span. `tracing_session` is the field that
/// `fields::MACRO_FIELD` names.
#[doc(hidden)]
#[macro_export]
macro_rules! __open {
    ($kind:ident [$($options:tt)*] target: $target:expr, $($rest:tt)*) => {
        $crate::__open!($kind [$($options)* [target: $target,]] $($rest)*)
    };
    ($kind:ident [$($options:tt)*] parent: $parent:expr, $($rest:tt)*) => {
        $crate::__open!($kind [$($options)* [parent: $parent,]] $($rest)*)
    };
    ($kind:ident [$([$($option:tt)*])*] level: $level:expr, $($rest:tt)*) => {
        $crate::__open!(@$kind [$($($option)*)* $level,] $($rest)*)
    };
    ($kind:ident [$([$($option:tt)*])*] $($rest:tt)*) => {
        $crate::__open!(@$kind [$($($option)*)* $crate::__private::Level::INFO,] $($rest)*)
    };
    (@session [$($options:tt)*]) => {
        $crate::__open!(@session [$($options)*] $crate::Session::generate())
    };
    (@session [$($options:tt)*] $id:expr $(, $($fields:tt)*)?) => {
        match &$id {
            given => {
                #[allow(unused_imports)]
                use $crate::__private::Displayed as _;
                let given = $crate::__private::Given(given);
                let _passing = given.pass();
                $crate::__private::checked($crate::__private::span!(
                    $($options)*
                    "session",
                    tracing_session = $crate::__private::Empty,
                    session.id = given.session_id().as_deref(),
                    user.id = given.user_id(),
                    $($($fields)*)?
                ))
            }
        }
    };
    (@user [$($options:tt)*] $id:expr $(, $($fields:tt)*)?) => {
        match &$id {
            given => {
                $crate::__private::checked($crate::__private::span!(
                    $($options)*
                    "user",
                    tracing_session = $crate::__private::Empty,
                    user.id = $crate::__private::text(given).as_str(),
                    $($($fields)*)?
                ))
            }
        }
    };
}

/// What the macros expand to.
#[doc(hidden)]
pub mod __private {
    pub use crate::diagnostic::setup::checked;
    use crate::here::Attached;
    use crate::layer::given;
    use crate::session::Session;
    use std::borrow::Cow;
    use std::fmt::Display;
    pub use tracing::field::Empty;
    pub use tracing::{Level, span};

    /// What `session!` was given: a `Session`, text, or else anything that displays, which has to be
    /// made a text first. Inherent methods stand before those of a trait.
    #[allow(clippy::exhaustive_structs)]
    #[allow(missing_debug_implementations, reason = "it would show an id")]
    pub struct Given<T>(pub T);

    pub trait Displayed {
        fn session_id(&self) -> Option<Cow<'_, str>>;

        #[inline]
        fn user_id(&self) -> Option<&str> {
            None
        }

        #[inline]
        fn pass(&self) -> Nothing {
            Nothing
        }
    }

    impl<T: Display + ?Sized> Displayed for Given<&T> {
        fn session_id(&self) -> Option<Cow<'_, str>> {
            Some(text(self.0).into())
        }
    }

    macro_rules! texts {
        ($($text:ty),*) => {$(
            impl Given<&$text> {
                #[inline]
                pub fn session_id(&self) -> Option<Cow<'_, str>> {
                    let text: &str = self.0;
                    Some(text.into())
                }
            }
        )*};
    }
    texts!(str, &str, String, &String);

    macro_rules! sessions {
        ($($session:ty),*) => {$(
            impl Given<&$session> {
                pub fn session_id(&self) -> Option<Cow<'_, str>> {
                    self.0.id().map(Cow::Borrowed)
                }

                pub fn user_id(&self) -> Option<&str> {
                    self.0.user_id()
                }

                pub fn pass(&self) -> Passing {
                    Passing {
                        _attached: given::pass(self.0),
                    }
                }
            }
        )*};
    }
    sessions!(Session, &Session);

    /// What no field can hold reaches the span while this lives.
    ///
    /// ```compile_fail,E0277
    /// # use tracing_session::{Session, session};
    /// fn needs_send<T: Send>(_: T) {}
    /// needs_send(async { session!(Session::generate(), number = async { 7 }.await) });
    /// ```
    #[derive(Debug)]
    #[must_use]
    pub struct Passing {
        _attached: Attached,
    }

    /// Fields hold all of it.
    #[derive(Debug)]
    #[allow(clippy::exhaustive_structs)]
    pub struct Nothing;

    pub fn text(id: &(impl Display + ?Sized)) -> String {
        id.to_string()
    }
}
