//! How a section of the configuration is declared: once, with its text and its defaults.
//!
//! [`section!`] makes the struct, its reader and the rows that the example file is printed from.

use super::read::Reader;

/// One option as the example file shows it.
pub struct Opt {
    pub key: &'static str,
    pub doc: &'static [&'static str],
    pub shape: Shape,
}

/// What an option is when the file does not have it. The texts are TOML values.
#[derive(Clone, Copy)]
pub enum Shape {
    /// It has this value.
    Default(&'static str),
    /// It must be given; this is an example.
    Required(&'static str),
    /// It has no value; this is an example.
    Optional(&'static str),
}

impl Shape {
    /// The value that the example file shows.
    pub fn shown(self) -> &'static str {
        match self {
            Self::Default(text) | Self::Required(text) | Self::Optional(text) => text,
        }
    }
}

/// A table of the configuration file.
pub trait Section: Sized {
    const KEY: &'static str;
    const ABOUT: &'static [&'static str];
    const OPTIONS: &'static [Opt];

    /// Reads every option; nothing if one of them does not fit (the reader knows which).
    fn read(reader: &mut Reader<'_>) -> Option<Self>;
}

macro_rules! section {
    (
        $(#[doc = $about:literal])*
        $name:ident($key:literal) {
            $( $(#[doc = $doc:literal])* $field:ident: $type:ty = $shape:ident($text:literal), )*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone)]
        pub struct $name {
            $( $(#[doc = $doc])* pub $field: $type, )*
        }

        impl $crate::config::option::Section for $name {
            const KEY: &'static str = $key;
            const ABOUT: &'static [&'static str] = &[$($about),*];
            const OPTIONS: &'static [$crate::config::option::Opt] = &[
                $( $crate::config::option::Opt {
                    key: stringify!($field),
                    doc: &[$($doc),*],
                    shape: $crate::config::option::Shape::$shape($text),
                }, )*
            ];

            fn read(reader: &mut $crate::config::read::Reader<'_>) -> Option<Self> {
                $( let $field = reader.option::<$type>(
                    stringify!($field),
                    $crate::config::option::Shape::$shape($text),
                ); )*
                Some(Self { $( $field: $field?, )* })
            }
        }
    };
}

pub(super) use section;
