/*
 * What the Zend Engine offers only as macros or inline functions, given a name that Rust can call. Being compiled
 * against PHP's headers it follows their layouts (ZTS, debug, versions) by itself.
 *
 * Every function that may run PHP code catches bailouts (fatal errors, time-outs), so that none ever jumps over a Rust
 * frame: it returns RT_BAILOUT, Rust drops what it holds, and the outermost function raises it again.
 */
#include "php.h"
#include "php_syslog.h"
#include "php_variables.h"
#include "SAPI.h"
#include "zend_exceptions.h"
#include "zend_interfaces.h"
#include "zend_signal.h"
#include "zend_smart_str.h"
#include "ext/json/php_json.h"
#include "ext/standard/info.h"
#include "ext/standard/url.h"

#define RT_OK 0
#define RT_EXCEPTION 1
#define RT_BAILOUT 2

/* --- arguments ------------------------------------------------------------------------------------------------- */

typedef struct {
	HashTable *channels;
	zend_string *channel;
	zval *data;
	zend_string *event;
	zend_string *except;
	zend_string *id;
	bool store;
} rt_broadcast_args;

/* Strict or weak, Stringable, names and words: all as PHP's own functions do it. */
bool rt_parse_broadcast(zend_execute_data *execute_data, rt_broadcast_args *args)
{
	memset(args, 0, sizeof(*args));
	args->store = true;
	ZEND_PARSE_PARAMETERS_START(2, 6)
		Z_PARAM_ARRAY_HT_OR_STR(args->channels, args->channel)
		Z_PARAM_ZVAL(args->data)
		Z_PARAM_OPTIONAL
		Z_PARAM_STR(args->event)
		Z_PARAM_STR_OR_NULL(args->except)
		Z_PARAM_STR_OR_NULL(args->id)
		Z_PARAM_BOOL(args->store)
	ZEND_PARSE_PARAMETERS_END_EX(return false);
	return true;
}

typedef struct {
	zend_fcall_info fci;
	zend_fcall_info_cache fcc;
} rt_callable;

static rt_callable *rt_callable_new(const zend_fcall_info *fci, const zend_fcall_info_cache *fcc)
{
	rt_callable *callable = emalloc(sizeof(*callable));
	callable->fci = *fci;
	callable->fcc = *fcc;
	Z_TRY_ADDREF(callable->fci.function_name);
	/* Keeps the scope that the callable was checked in: a private method stays callable. */
	if (callable->fcc.object) {
		GC_ADDREF(callable->fcc.object);
	}
	return callable;
}

void rt_callable_free(rt_callable *callable)
{
	zend_object *object = callable->fcc.object;
	zval_ptr_dtor(&callable->fci.function_name);
	if (object) {
		OBJ_RELEASE(object);
	}
	efree(callable);
}

/* (callable $handler[, string $channel]) when channel is given, else (callable $handler). */
rt_callable *rt_parse_handler(zend_execute_data *execute_data, zend_string **channel)
{
	zend_fcall_info fci;
	zend_fcall_info_cache fcc;
	ZEND_PARSE_PARAMETERS_START(1, channel ? 2 : 1)
		Z_PARAM_FUNC(fci, fcc)
		Z_PARAM_OPTIONAL
		Z_PARAM_STR(*channel)
	ZEND_PARSE_PARAMETERS_END_EX(return NULL);
	return rt_callable_new(&fci, &fcc);
}

/* (float $seconds, callable $callback) */
rt_callable *rt_parse_timer(zend_execute_data *execute_data, double *seconds)
{
	zend_fcall_info fci;
	zend_fcall_info_cache fcc;
	ZEND_PARSE_PARAMETERS_START(2, 2)
		Z_PARAM_DOUBLE(*seconds)
		Z_PARAM_FUNC(fci, fcc)
	ZEND_PARSE_PARAMETERS_END_EX(return NULL);
	return rt_callable_new(&fci, &fcc);
}

/* --- calls, exceptions, bailouts --------------------------------------------------------------------------------- */

int rt_callable_call(const rt_callable *callable, uint32_t argc, zval *argv, zval *ret)
{
	volatile int result = RT_OK;
	zend_fcall_info fci = callable->fci;
	zend_fcall_info_cache fcc = callable->fcc;
	ZVAL_NULL(ret);
	fci.retval = ret;
	fci.params = argv;
	fci.param_count = argc;
	zend_try {
		if (zend_call_function(&fci, &fcc) != SUCCESS && !EG(exception)) {
			zend_throw_error(NULL, "The handler cannot be called any more");
		}
	} zend_catch {
		result = RT_BAILOUT;
	} zend_end_try();
	if (result == RT_OK && EG(exception)) {
		result = RT_EXCEPTION;
	}
	if (Z_ISUNDEF_P(ret)) {
		ZVAL_NULL(ret);
	}
	return result;
}

/* 0 none, 1 an exception, 2 exit() on its way out */
int rt_pending(void)
{
	if (!EG(exception)) {
		return 0;
	}
	return zend_is_unwind_exit(EG(exception)) || zend_is_graceful_exit(EG(exception)) ? 2 : 1;
}

zend_object *rt_take_exception(void)
{
	zend_object *exception = EG(exception);
	GC_ADDREF(exception);
	zend_clear_exception();
	return exception;
}

void rt_release_object(zend_object *object)
{
	OBJ_RELEASE(object);
}

/* Reflection says string|array: a union that the builder of functions has no word for. */
void rt_arg_takes_array(const char *function, uint32_t arg)
{
	zend_function *found = zend_hash_str_find_ptr(CG(function_table), function, strlen(function));
	if (found) {
		((zend_internal_arg_info *) found->internal_function.arg_info)[arg].type.type_mask |= MAY_BE_ARRAY;
	}
}

/* The function without the type looks a dl()'s module up among those that are being freed. */
void rt_unregister_ini(int type, int module_number)
{
	(void) type;
	UNREGISTER_INI_ENTRIES();
}

/* One line in PHP's log, which is the terminal of php -S. Runs no PHP code. */
void rt_log(const char *message)
{
	php_log_err_with_severity(message, LOG_WARNING);
}

static void rt_warn(const char *message)
{
	php_error_docref(NULL, E_WARNING, "%s", message);
}

/* A warning; a user's error handler may run, and throw, as for any warning. */
int rt_warning(const char *message)
{
	volatile int result = RT_OK;
	zend_try {
		rt_warn(message);
	} zend_catch {
		result = RT_BAILOUT;
	} zend_end_try();
	return result == RT_OK && EG(exception) ? RT_EXCEPTION : result;
}

/*
 * Tells of an exception that nobody took. A user's error handler that turns warnings into exceptions must not end the
 * loop: what it throws is dropped, and the message goes to PHP's log instead.
 */
int rt_warn_uncaught(zend_object *exception, const char *where)
{
	volatile int result = RT_OK;
	zend_string *volatile text = NULL;
	char *volatile message = NULL;
	zend_try {
		zval value;
		ZVAL_OBJ(&value, exception);
		text = zval_try_get_string(&value);
		if (!text) {
			/* Its own __toString() throws. */
			if (rt_pending() == 1) {
				zend_clear_exception();
			}
			text = zend_string_copy(exception->ce->name);
		}
		if (rt_pending() != 2) {
			char *made = NULL;
			spprintf(&made, 0, "Uncaught %s\n  thrown in %s", ZSTR_VAL((zend_string *) text), where);
			message = made;
			rt_warn(message);
			if (rt_pending() == 1) {
				zend_clear_exception();
				php_log_err(message);
			}
		}
	} zend_catch {
		result = RT_BAILOUT;
	} zend_end_try();
	if (message) {
		efree(message);
	}
	if (text) {
		zend_string_release((zend_string *) text);
	}
	return result == RT_OK && EG(exception) ? RT_EXCEPTION : result;
}

/* Outermost frame only: nothing that Rust would have to drop may be alive. */
ZEND_COLD ZEND_NORETURN void rt_bailout(void)
{
	zend_bailout();
}

/* What the VM does between two instructions: time-outs and pcntl's asynchronous signals. */
bool rt_interrupted(void)
{
	return zend_atomic_bool_load_ex(&EG(vm_interrupt));
}

int rt_interrupt(void)
{
	volatile int result = RT_OK;
	if (!zend_atomic_bool_load_ex(&EG(vm_interrupt))) {
		return RT_OK;
	}
	zend_atomic_bool_store_ex(&EG(vm_interrupt), false);
	zend_try {
		if (zend_atomic_bool_load_ex(&EG(timed_out))) {
			zend_timeout();
		} else if (zend_interrupt_function) {
			zend_interrupt_function(EG(current_execute_data));
		}
	} zend_catch {
		result = RT_BAILOUT;
	} zend_end_try();
	return result == RT_OK && EG(exception) ? RT_EXCEPTION : result;
}

/* Signals that pcntl noted without pcntl_async_signals(): a script that sits in rt_run() cannot dispatch them. */
int rt_pcntl_dispatch(void)
{
	volatile int result = RT_OK;
	zend_function *dispatch = zend_hash_str_find_ptr(CG(function_table), ZEND_STRL("pcntl_signal_dispatch"));
	if (!dispatch) {
		return RT_OK;
	}
	zend_try {
		zval ret;
		ZVAL_UNDEF(&ret);
		zend_call_known_function(dispatch, NULL, NULL, &ret, 0, NULL, NULL);
		zval_ptr_dtor(&ret);
	} zend_catch {
		result = RT_BAILOUT;
	} zend_end_try();
	return result == RT_OK && EG(exception) ? RT_EXCEPTION : result;
}

/*
 * Takes a signal over if it has its default action, as seen through Zend's own signal layer. False: the script (or its
 * parent, by ignoring it) has decided otherwise.
 */
bool rt_signal_take(int signo, void (*handler)(int), struct sigaction *before)
{
	struct sigaction act;
	zend_sigaction(signo, NULL, before);
	if ((before->sa_flags & SA_SIGINFO) || before->sa_handler != SIG_DFL) {
		return false;
	}
	memset(&act, 0, sizeof(act));
	act.sa_handler = handler;
	sigemptyset(&act.sa_mask);
	zend_sigaction(signo, &act, NULL);
	return true;
}

/* Gives it back, unless a callback has put a handler of its own there meanwhile. */
void rt_signal_give_back(int signo, void (*handler)(int), const struct sigaction *before)
{
	struct sigaction now;
	zend_sigaction(signo, NULL, &now);
	if (!(now.sa_flags & SA_SIGINFO) && now.sa_handler == handler) {
		zend_sigaction(signo, before, NULL);
	}
}

/* --- values ------------------------------------------------------------------------------------------------------ */

/* RT_OK: *out is json_encode()'s own output, or *error says why not (a php_json_error_code). */
int rt_json_encode(zval *value, zend_string **out, int *error)
{
	volatile int result = RT_OK;
	smart_str buffer = {0};
	php_json_error_code before = JSON_G(error_code);
	*out = NULL;
	*error = 0;
	zend_try {
		zend_result encoded = php_json_encode_ex(&buffer, value, 0, PHP_JSON_PARSER_DEFAULT_DEPTH);
		/* NAN "succeeds" with a 0 in its place. */
		*error = JSON_G(error_code);
		if (encoded != SUCCESS && *error == 0 && !EG(exception)) {
			*error = PHP_JSON_ERROR_SYNTAX;
		}
	} zend_catch {
		result = RT_BAILOUT;
	} zend_end_try();
	/* json_last_error() is the script's own. */
	JSON_G(error_code) = before;
	if (result == RT_OK && EG(exception)) {
		result = RT_EXCEPTION;
	}
	if (result == RT_OK && *error == 0) {
		smart_str_0(&buffer);
		*out = buffer.s ? buffer.s : ZSTR_EMPTY_ALLOC();
	} else {
		smart_str_free(&buffer);
	}
	return result;
}

bool rt_json_decode(zval *out, const char *text, size_t length)
{
	php_json_error_code before = JSON_G(error_code);
	char small[512];
	bool ok;
	/* The scanner wants a NUL after the last byte. */
	char *copy = length < sizeof(small) ? small : emalloc(length + 1);
	memcpy(copy, text, length);
	copy[length] = '\0';
	ZVAL_NULL(out);
	ok = php_json_decode_ex(out, copy, length, PHP_JSON_OBJECT_AS_ARRAY, PHP_JSON_PARSER_DEFAULT_DEPTH) == SUCCESS;
	JSON_G(error_code) = before;
	if (copy != small) {
		efree(copy);
	}
	return ok;
}

/* As PHP fills $_GET. Takes the SAPI's own parser, so max_input_vars and the like hold. */
void rt_parse_query(const char *text, size_t length, zval *out)
{
	array_init(out);
	/* treat_data frees its copy. */
	sapi_module.treat_data(PARSE_STRING, estrndup(text, length), out);
}

/* As PHP fills $_COOKIE: the first of two wins, names are taken as they are, values decoded. */
void rt_add_cookies(char *line, zval *out)
{
	char *rest = NULL;
	for (char *name = php_strtok_r(line, ";", &rest); name; name = php_strtok_r(NULL, ";", &rest)) {
		char *value = strchr(name, '=');
		while (isspace((unsigned char) *name)) {
			name++;
		}
		if (!value || value <= name) {
			continue;
		}
		*value++ = '\0';
		if (zend_symtable_str_exists(Z_ARRVAL_P(out), name, strlen(name))) {
			continue;
		}
		php_register_variable_safe(name, value, php_raw_url_decode(value, strlen(value)), out);
	}
}

void rt_fd_stream(int fd, zval *out)
{
	php_stream *stream = php_stream_fopen_from_fd(fd, "r", NULL);
	if (stream) {
		php_stream_to_zval(stream, out);
	} else {
		ZVAL_FALSE(out);
	}
}

/* --- objects ----------------------------------------------------------------------------------------------------- */

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
