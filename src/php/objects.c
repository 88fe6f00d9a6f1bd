/*
 * The objects of Realtime\Connection, Realtime\Message and Realtime\Binary: what their properties are, and where Rust's
 * part of them is kept. Made and read by Rust through the functions here; see shim.c for why they are in C.
 */
#include "php.h"
#include "zend_interfaces.h"

/* Realtime\Connection and Realtime\Message: a pointer of Rust's in front of PHP's object. */
typedef struct {
	void *native;
	zend_object std;
} rt_object;

/* In Rust. */
extern void rt_connection_read(void *native, zval *slots);
extern void rt_connection_drop(void *native);
extern int rt_connection_same(void *a, void *b);
extern void rt_message_drop(void *native);

#define RT_CONNECTION_SLOTS 8
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
	zend_object_std_dtor(object);
}

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
	rt_connection_fill(object);
	return zend_std_read_property(object, name, type, cache, rv);
}

static zval *rt_connection_write_property(zend_object *object, zend_string *name, zval *value, void **cache)
{
	rt_connection_fill(object);
	return zend_std_write_property(object, name, value, cache);
}

static zval *rt_connection_property_ptr(zend_object *object, zend_string *name, int type, void **cache)
{
	rt_connection_fill(object);
	return zend_std_get_property_ptr_ptr(object, name, type, cache);
}

static int rt_connection_has_property(zend_object *object, zend_string *name, int check, void **cache)
{
	rt_connection_fill(object);
	return zend_std_has_property(object, name, check, cache);
}

static void rt_connection_unset_property(zend_object *object, zend_string *name, void **cache)
{
	rt_connection_fill(object);
	zend_std_unset_property(object, name, cache);
}

static HashTable *rt_connection_properties(zend_object *object)
{
	rt_connection_fill(object);
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
