/*
 * The objects of Realtime\Connection, Realtime\Message and Realtime\Binary: what their properties are, and where Rust's
 * part of them is kept. Made and read by Rust through the functions here; see shim.c for why they are in C.
 */
#include "php.h"
#include "zend_exceptions.h"
#include "zend_interfaces.h"

/* Realtime\Connection and Realtime\Message: a pointer of Rust's in front of PHP's object. */
typedef struct {
	void *native;
	/* Of a connection: $state as it was decoded, by which is seen whether a handler has changed it. */
	zval seen;
	zend_object std;
} rt_object;

/* In Rust. */
extern void rt_connection_read(void *native, zval *slots);
extern void rt_connection_drop(void *native);
extern int rt_connection_same(void *a, void *b);
extern void rt_connection_state(void *native, zval *state);
extern void rt_message_drop(void *native);

/* The properties that never change, then the state. */
#define RT_CONNECTION_SLOTS 8
#define RT_STATE_SLOT RT_CONNECTION_SLOTS
static zend_string *rt_state_name;
/* The connection whose handlers run now on this thread: the only one whose state may be written. */
static _Thread_local zend_object *rt_current;
static zend_object_handlers rt_connection_handlers;
static zend_object_handlers rt_message_handlers;

static inline rt_object *rt_object_of(zend_object *object)
{
	return (rt_object *) ((char *) object - XtOffsetOf(rt_object, std));
}

void *rt_native(zend_object *object)
{
	return rt_object_of(object)->native;
}

static zend_object *rt_object_new(zend_class_entry *ce, zend_object_handlers *handlers)
{
	rt_object *object = zend_object_alloc(sizeof(rt_object), ce);
	object->native = NULL;
	ZVAL_UNDEF(&object->seen);
	zend_object_std_init(&object->std, ce);
	object_properties_init(&object->std, ce);
	object->std.handlers = handlers;
	return &object->std;
}

static zend_object *rt_connection_create(zend_class_entry *ce)
{
	return rt_object_new(ce, &rt_connection_handlers);
}

static zend_object *rt_message_create(zend_class_entry *ce)
{
	return rt_object_new(ce, &rt_message_handlers);
}

zend_object *rt_object_make(zend_class_entry *ce, void *native)
{
	zend_object *object = ce->create_object(ce);
	rt_object_of(object)->native = native;
	return object;
}

/* Takes over count values, in the order in which the properties were declared. */
void rt_object_fill(zend_object *object, uint32_t count, zval *values)
{
	for (uint32_t i = 0; i < count; i++) {
		ZVAL_COPY_VALUE(OBJ_PROP_NUM(object, i), &values[i]);
	}
}

zend_object *rt_plain_object(zend_class_entry *ce)
{
	zval value;
	if (object_init_ex(&value, ce) != SUCCESS) {
		return NULL;
	}
	return Z_OBJ(value);
}

zval *rt_object_slot(zend_object *object, uint32_t slot)
{
	return OBJ_PROP_NUM(object, slot);
}

static void rt_message_free(zend_object *object)
{
	if (rt_object_of(object)->native) {
		rt_message_drop(rt_object_of(object)->native);
	}
	zend_object_std_dtor(object);
}

static void rt_connection_free(zend_object *object)
{
	if (rt_object_of(object)->native) {
		rt_connection_drop(rt_object_of(object)->native);
	}
	zval_ptr_dtor(&rt_object_of(object)->seen);
	zend_object_std_dtor(object);
}

/* --- $state ------------------------------------------------------------------------------------------------------ */

static void rt_state_forget(zend_object *object)
{
	zval *slot = OBJ_PROP_NUM(object, RT_STATE_SLOT);
	zval before;
	ZVAL_COPY_VALUE(&before, slot);
	ZVAL_UNDEF(slot);
	if (Z_ISREF(before) && ZEND_REF_HAS_TYPE_SOURCES(Z_REF(before))) {
		ZEND_REF_DEL_TYPE_SOURCE(Z_REF(before), zend_get_property_info_for_slot(object, slot));
	}
	zval_ptr_dtor(&rt_object_of(object)->seen);
	ZVAL_UNDEF(&rt_object_of(object)->seen);
	zval_ptr_dtor(&before);
}

/* While its handlers run the slot holds what they make of it; at any other time it is what the server has now. */
static void rt_state_fill(zend_object *object)
{
	zval *slot = OBJ_PROP_NUM(object, RT_STATE_SLOT);
	if (!rt_object_of(object)->native || (rt_current == object && Z_TYPE_P(slot) != IS_UNDEF)) {
		return;
	}
	rt_state_forget(object);
	ZVAL_NULL(slot);
	rt_connection_state(rt_object_of(object)->native, slot);
	/* The second reference makes every write to the slot a write to another array. */
	ZVAL_COPY(&rt_object_of(object)->seen, slot);
}

static bool rt_state_writable(zend_object *object)
{
	if (rt_current != object) {
		zend_throw_error(NULL, "Realtime\\Connection::$state can be written only in a handler of that connection's events");
		return false;
	}
	rt_state_fill(object);
	return true;
}

static bool rt_is_state(zend_string *name)
{
	return name == rt_state_name || zend_string_equals(name, rt_state_name);
}

/* Makes the VM come here again: reading its slot directly it would see what is out of date. */
static void rt_uncache(void **cache)
{
	if (cache) {
		cache[0] = NULL;
	}
}

/* Its handlers run from now on. Returns the one before it, to be put back. */
zend_object *rt_connection_enter(zend_object *object)
{
	zend_object *before = rt_current;
	rt_current = object;
	return before;
}

/* The state if a handler has changed it, else NULL. */
zval *rt_connection_changed(zend_object *object)
{
	zval *now = OBJ_PROP_NUM(object, RT_STATE_SLOT), *seen = &rt_object_of(object)->seen;
	if (Z_TYPE_P(now) == IS_UNDEF) {
		return NULL;
	}
	ZVAL_DEREF(now);
	if (Z_TYPE_P(now) == Z_TYPE_P(seen) && (Z_TYPE_P(now) != IS_ARRAY || Z_ARR_P(now) == Z_ARR_P(seen))) {
		return NULL;
	}
	return now;
}

/* It is decoded anew when it is next looked at. What handlers put into it may have destructors. */
int rt_connection_reload(zend_object *object)
{
	volatile int result = 0;
	zend_try {
		rt_state_forget(object);
	} zend_catch {
		result = 2;
	} zend_end_try();
	return result == 0 && EG(exception) ? 1 : result;
}

/* --- properties -------------------------------------------------------------------------------------------------- */

/*
 * A connection's properties are made when the first of them is looked at: most handlers look at none, and a request's
 * headers, query and cookies are dear to build. The VM reads a slot that is set without coming here.
 */
static void rt_connection_fill(zend_object *object)
{
	zval values[RT_CONNECTION_SLOTS];
	if (EXPECTED(Z_TYPE_P(OBJ_PROP_NUM(object, 0)) != IS_UNDEF) || !rt_object_of(object)->native) {
		return;
	}
	for (int i = 0; i < RT_CONNECTION_SLOTS; i++) {
		ZVAL_NULL(&values[i]);
	}
	rt_connection_read(rt_object_of(object)->native, values);
	if (Z_TYPE_P(OBJ_PROP_NUM(object, 0)) == IS_UNDEF) {
		rt_object_fill(object, RT_CONNECTION_SLOTS, values);
		return;
	}
	/* A warning about the query ran a user's error handler, and that one looked here first. */
	for (int i = 0; i < RT_CONNECTION_SLOTS; i++) {
		zval_ptr_dtor(&values[i]);
	}
}

static zval *rt_connection_read_property(zend_object *object, zend_string *name, int type, void **cache, zval *rv)
{
	zval *value;
	if (!rt_is_state(name)) {
		rt_connection_fill(object);
		return zend_std_read_property(object, name, type, cache, rv);
	}
	rt_state_fill(object);
	value = zend_std_read_property(object, name, type, cache, rv);
	rt_uncache(cache);
	return value;
}

static zval *rt_connection_write_property(zend_object *object, zend_string *name, zval *value, void **cache)
{
	if (!rt_is_state(name)) {
		rt_connection_fill(object);
		return zend_std_write_property(object, name, value, cache);
	}
	if (rt_state_writable(object)) {
		value = zend_std_write_property(object, name, value, cache);
		rt_uncache(cache);
	}
	return value;
}

static zval *rt_connection_property_ptr(zend_object *object, zend_string *name, int type, void **cache)
{
	zval *slot;
	if (!rt_is_state(name)) {
		rt_connection_fill(object);
		return zend_std_get_property_ptr_ptr(object, name, type, cache);
	}
	if (!rt_state_writable(object)) {
		return &EG(error_zval);
	}
	slot = zend_std_get_property_ptr_ptr(object, name, type, cache);
	rt_uncache(cache);
	return slot;
}

static int rt_connection_has_property(zend_object *object, zend_string *name, int check, void **cache)
{
	int has;
	if (!rt_is_state(name)) {
		rt_connection_fill(object);
		return zend_std_has_property(object, name, check, cache);
	}
	rt_state_fill(object);
	has = zend_std_has_property(object, name, check, cache);
	rt_uncache(cache);
	return has;
}

static void rt_connection_unset_property(zend_object *object, zend_string *name, void **cache)
{
	zval null;
	if (!rt_is_state(name)) {
		rt_connection_fill(object);
		zend_std_unset_property(object, name, cache);
	} else if (rt_state_writable(object)) {
		/* The connection has none any more. */
		ZVAL_NULL(&null);
		zend_std_write_property(object, name, &null, NULL);
	}
}

static HashTable *rt_connection_properties(zend_object *object)
{
	rt_connection_fill(object);
	rt_state_fill(object);
	return zend_std_get_properties(object);
}

/* Two objects of one connection are equal, though perhaps only one of them was looked at. */
static int rt_connection_compare(zval *a, zval *b)
{
	if (Z_TYPE_P(a) == IS_OBJECT && Z_TYPE_P(b) == IS_OBJECT && Z_OBJCE_P(a) == Z_OBJCE_P(b)) {
		void *left = rt_native(Z_OBJ_P(a)), *right = rt_native(Z_OBJ_P(b));
		return left && right && rt_connection_same(left, right) ? 0 : ZEND_UNCOMPARABLE;
	}
	return zend_std_compare_objects(a, b);
}

/* mask is 0 for a class type, and type its name then. */
static void rt_declare(zend_class_entry *ce, const char *name, uint32_t mask, const char *type)
{
	zval unset;
	zend_string *key = zend_string_init_interned(name, strlen(name), 1);
	zend_type declared = type
		? (zend_type) ZEND_TYPE_INIT_CLASS(zend_string_init_interned(type, strlen(type), 1), 0, 0)
		: (zend_type) ZEND_TYPE_INIT_MASK(mask);
	ZVAL_UNDEF(&unset);
	zend_declare_typed_property(ce, key, &unset, ZEND_ACC_PUBLIC | ZEND_ACC_READONLY, NULL, declared);
}

static void rt_declare_state(zend_class_entry *ce)
{
	zval unset;
	ZVAL_UNDEF(&unset);
	rt_state_name = zend_string_init_interned("state", sizeof("state") - 1, 1);
	zend_declare_typed_property(ce, rt_state_name, &unset, ZEND_ACC_PUBLIC, NULL,
		(zend_type) ZEND_TYPE_INIT_MASK(MAY_BE_ARRAY | MAY_BE_NULL));
}

static void rt_handlers(zend_object_handlers *handlers, void (*free_obj)(zend_object *))
{
	memcpy(handlers, &std_object_handlers, sizeof(*handlers));
	handlers->offset = XtOffsetOf(rt_object, std);
	handlers->free_obj = free_obj;
	/* A second object with the same right to reply would be a trap. */
	handlers->clone_obj = NULL;
}

void rt_connection_setup(zend_class_entry *ce)
{
	ce->ce_flags |= ZEND_ACC_FINAL | ZEND_ACC_NO_DYNAMIC_PROPERTIES | ZEND_ACC_NOT_SERIALIZABLE;
	rt_declare(ce, "id", MAY_BE_STRING, NULL);
	rt_declare(ce, "transport", MAY_BE_STRING, NULL);
	rt_declare(ce, "ip", MAY_BE_STRING, NULL);
	rt_declare(ce, "path", MAY_BE_STRING, NULL);
	rt_declare(ce, "query", MAY_BE_ARRAY, NULL);
	rt_declare(ce, "headers", MAY_BE_ARRAY, NULL);
	rt_declare(ce, "cookies", MAY_BE_ARRAY, NULL);
	rt_declare(ce, "user", MAY_BE_STRING | MAY_BE_NULL, NULL);
	rt_declare_state(ce);
	ce->create_object = rt_connection_create;
	rt_handlers(&rt_connection_handlers, rt_connection_free);
	rt_connection_handlers.read_property = rt_connection_read_property;
	rt_connection_handlers.write_property = rt_connection_write_property;
	rt_connection_handlers.get_property_ptr_ptr = rt_connection_property_ptr;
	rt_connection_handlers.has_property = rt_connection_has_property;
	rt_connection_handlers.unset_property = rt_connection_unset_property;
	rt_connection_handlers.get_properties = rt_connection_properties;
	rt_connection_handlers.compare = rt_connection_compare;
}

void rt_message_setup(zend_class_entry *ce)
{
	ce->ce_flags |= ZEND_ACC_FINAL | ZEND_ACC_NO_DYNAMIC_PROPERTIES | ZEND_ACC_NOT_SERIALIZABLE;
	rt_declare(ce, "channel", MAY_BE_STRING, NULL);
	rt_declare(ce, "event", MAY_BE_STRING, NULL);
	rt_declare(ce, "data", MAY_BE_ANY, NULL);
	rt_declare(ce, "id", MAY_BE_STRING, NULL);
	rt_declare(ce, "from", 0, "Realtime\\Connection");
	ce->create_object = rt_message_create;
	rt_handlers(&rt_message_handlers, rt_message_free);
}

void rt_binary_setup(zend_class_entry *ce)
{
	ce->ce_flags |= ZEND_ACC_FINAL | ZEND_ACC_NO_DYNAMIC_PROPERTIES;
	rt_declare(ce, "bytes", MAY_BE_STRING, NULL);
}
