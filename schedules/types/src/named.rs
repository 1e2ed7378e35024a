//! Enums whose values have names.

/// Declares an enum whose values have names, by which files, requests, metrics and messages know them. A
/// name is the variant's own unless another one is given.
#[macro_export]
macro_rules! named {
    (@name $variant:ident) => {
        stringify!($variant)
    };
    (@name $variant:ident $name:literal) => {
        $name
    };
    ($(#[$meta:meta])* pub enum $type:ident { $($(#[$doc:meta])* $variant:ident $(= $name:literal)?,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $type {
            $($(#[$doc])* $variant,)*
        }

        impl $type {
            /// All of them, in order.
            pub const ALL: [$type; [$($type::$variant),*].len()] = [$($type::$variant),*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self {
                    $($type::$variant => $crate::named!(@name $variant $($name)?),)*
                }
            }

            /// The one with a name.
            pub fn named(name: &str) -> Option<$type> {
                $type::ALL.into_iter().find(|value| value.name() == name)
            }

            /// Every name, comma-separated: for error messages and help texts.
            pub fn names() -> String {
                $type::ALL.map($type::name).join(", ")
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }
    };
}
