//! The classes in `Realtime\`: registered at startup, found again by [`Class`].
//!
//! What their methods do is in `connection` and `message`; their properties are declared in `shim.c`.
//! Imports `zend`.

use std::sync::atomic::{AtomicPtr, Ordering};

use ext_php_rs::args::{Arg, ArgInfoTables};
use ext_php_rs::builders::{ClassBuilder, FunctionBuilder};
use ext_php_rs::flags::{DataType, MethodFlags};
use ext_php_rs::types::ZendObject;
use ext_php_rs::zend::{ClassEntry, ce};

use super::{connection, message, zend};

/// One of our classes, known from MINIT on.
#[derive(Debug)]
pub struct Class {
    entry: AtomicPtr<ClassEntry>,
    /// PHP keeps pointers into these for the life of the process; kept where a leak checker finds them.
    tables: AtomicPtr<ArgInfoTables>,
}

/// `Realtime\Exception`
pub static EXCEPTION: Class = Class::unknown();
/// `Realtime\Connection`
pub static CONNECTION: Class = Class::unknown();
/// `Realtime\Message`
pub static MESSAGE: Class = Class::unknown();
/// `Realtime\Binary`
pub static BINARY: Class = Class::unknown();

impl Class {
    const fn unknown() -> Self {
        Self {
            entry: AtomicPtr::new(std::ptr::null_mut()),
            tables: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    /// PHP's entry for it.
    pub fn entry(&self) -> *mut ClassEntry {
        self.entry.load(Ordering::Relaxed)
    }

    /// Whether `object` is of this class. All but the exception are final, so there are no subclasses.
    pub fn is_class_of(&self, object: &ZendObject) -> bool {
        object.ce == self.entry()
    }

    fn found(&self, entry: &'static mut ClassEntry, tables: ArgInfoTables) {
        let tables = Box::into_raw(Box::new(tables));
        self.tables.store(tables, Ordering::Relaxed);
        self.entry.store(entry, Ordering::Relaxed);
    }
}

/// Registers all of them. For MINIT.
pub fn register() -> ext_php_rs::error::Result<()> {
    ClassBuilder::new("Realtime\\Exception")
        .extends((ce::exception, "\\Exception"))
        .registration(|entry, tables| EXCEPTION.found(entry, tables))
        .register()?;
    ClassBuilder::new("Realtime\\Binary")
        .method(
            FunctionBuilder::constructor(message::binary_construct)
                .arg(Arg::new("bytes", DataType::String)),
            MethodFlags::Public,
        )
        .method(
            FunctionBuilder::new("__toString", message::binary_to_string).returns(
                DataType::String,
                false,
                false,
            ),
            MethodFlags::Public,
        )
        .registration(|entry, tables| {
            // SAFETY: in MINIT; PHP's entry of the class that is being registered.
            unsafe { zend::rt_binary_setup(entry) };
            BINARY.found(entry, tables);
        })
        .register()?;
    connection_class().register()?;
    ClassBuilder::new("Realtime\\Message")
        .method(private_constructor(), MethodFlags::Private)
        .method(
            FunctionBuilder::new("reply", message::reply)
                .arg(Arg::new("data", DataType::Mixed))
                .returns(DataType::Void, false, false),
            MethodFlags::Public,
        )
        .registration(|entry, tables| {
            // SAFETY: as above.
            unsafe { zend::rt_message_setup(entry) };
            MESSAGE.found(entry, tables);
        })
        .register()
}

fn connection_class() -> ClassBuilder {
    let returns_bool =
        |function: FunctionBuilder<'static>| function.returns(DataType::Bool, false, false);
    ClassBuilder::new("Realtime\\Connection")
        .method(private_constructor(), MethodFlags::Private)
        .method(
            returns_bool(
                FunctionBuilder::new("send", connection::send)
                    .arg(Arg::new("data", DataType::Mixed))
                    .not_required()
                    .arg(Arg::new("event", DataType::String).default("'message'")),
            ),
            MethodFlags::Public,
        )
        .method(
            returns_bool(
                FunctionBuilder::new("close", connection::close)
                    .not_required()
                    .arg(Arg::new("code", DataType::Long).default("1000"))
                    .arg(Arg::new("reason", DataType::String).default("''")),
            ),
            MethodFlags::Public,
        )
        .method(
            returns_bool(
                FunctionBuilder::new("subscribe", connection::subscribe)
                    .arg(Arg::new("channel", DataType::String)),
            ),
            MethodFlags::Public,
        )
        .method(
            returns_bool(
                FunctionBuilder::new("unsubscribe", connection::unsubscribe)
                    .arg(Arg::new("channel", DataType::String)),
            ),
            MethodFlags::Public,
        )
        .registration(|entry, tables| {
            // SAFETY: in MINIT; PHP's entry of the class that is being registered.
            unsafe { zend::rt_connection_setup(entry) };
            CONNECTION.found(entry, tables);
        })
}

/// Only the extension makes such objects.
fn private_constructor() -> FunctionBuilder<'static> {
    FunctionBuilder::constructor(connection::construct)
}
