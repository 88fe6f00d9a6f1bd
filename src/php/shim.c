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
#include "zend_signal.h"
#include "zend_smart_str.h"
#include "ext/json/php_json.h"
#include "ext/standard/info.h"
#include "ext/standard/php_fopen_wrappers.h"
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
	HashTable *topics;
	zend_string *topic;
	zend_string *data;
	zend_string *id;
	zend_string *type;
	zend_long retry;
	bool no_retry;
	bool private;
} rt_update_args;

bool rt_parse_update(zend_execute_data *execute_data, rt_update_args *args)
{
	memset(args, 0, sizeof(*args));
	args->no_retry = true;
	ZEND_PARSE_PARAMETERS_START(1, 6)
		Z_PARAM_ARRAY_HT_OR_STR(args->topics, args->topic)
		Z_PARAM_OPTIONAL
		Z_PARAM_STR(args->data)
		Z_PARAM_BOOL(args->private)
		Z_PARAM_STR_OR_NULL(args->id)
		Z_PARAM_STR_OR_NULL(args->type)
		Z_PARAM_LONG_OR_NULL(args->retry, args->no_retry)
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

/* Puts another text in the place of a setting's value, which nobody is to see. Of this thread's own table, or of the one from
 * which each thread gets a copy. */
void rt_show_ini(const char *name, size_t name_length, const char *text, size_t length)
{
	zend_ini_entry *entry = zend_hash_str_find_ptr(EG(ini_directives), name, name_length);
	if (entry && entry->value) {
		zend_string_release(entry->value);
		entry->value = zend_string_init(text, length, true);
	}
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
	/* Both kinds of handler are one field. pcntl_signal() sets SA_SIGINFO even with SIG_DFL. */
	if (before->sa_handler != SIG_DFL) {
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

/* --- requests ---------------------------------------------------------------------------------------------------- */

/* In Rust: whether events of this request wait for their outcome, and what to do before it ends early. */
extern int rt_web_busy(void);
extern int rt_web_leave(void);

/* Whether a web server has sent this request: the one in which opcache.preload runs its script has come from nobody. */
bool rt_request_is_sent(void)
{
	return SG(server_context) != NULL;
}

/* A parameter of the FastCGI request; its length, 0 when it is not there or does not fit. */
size_t rt_request_param(const char *text, size_t text_length, char *out, size_t size)
{
	char name[32];
	const char *value;
	size_t length;
	if (text_length >= sizeof(name) || !sapi_module.getenv) {
		return 0;
	}
	memcpy(name, text, text_length);
	name[text_length] = '\0';
	/* Not sapi_getenv(), which would have filter.default change it. The SAPI keeps it. */
	value = sapi_module.getenv(name, text_length);
	length = value ? strlen(value) : 0;
	if (length > size) {
		length = 0;
	}
	if (length > 0) {
		memcpy(out, value, length);
	}
	return length;
}

/*
 * As php://input gives it, also where a script has taken that wrapper away. Mostly nobody has begun to read it, and then it
 * need not go through PHP's streams.
 */
int rt_request_body(zend_string **out)
{
	volatile int result = RT_OK;
	*out = NULL;
	zend_try {
		size_t length = SG(request_info).content_length > 0 ? SG(request_info).content_length : 0;
		if (SG(request_info).request_body || SG(post_read) || SG(read_post_bytes) > 0) {
			php_stream *input = php_stream_php_wrapper.wops->stream_opener(
				(php_stream_wrapper *) &php_stream_php_wrapper, "php://input", "rb", 0, NULL, NULL STREAMS_CC);
			if (input) {
				*out = php_stream_copy_to_mem(input, PHP_STREAM_COPY_ALL, 0);
				php_stream_close(input);
			}
		} else {
			zend_string *body = zend_string_alloc(length, 0);
			/* Reads until it has as much, or there is no more. */
			size_t count = sapi_read_post_block(ZSTR_VAL(body), length);
			ZSTR_LEN(body) = count <= length ? count : 0;
			ZSTR_VAL(body)[ZSTR_LEN(body)] = '\0';
			*out = body;
		}
	} zend_catch {
		result = RT_BAILOUT;
	} zend_end_try();
	return result == RT_OK && EG(exception) ? RT_EXCEPTION : result;
}

/*
 * Straight to the SAPI, past output buffers and headers: only the server reads it. RT_EXCEPTION (and none is there) when
 * nobody reads any more; RT_BAILOUT when PHP ends the script for that. Not flushed, it goes with what comes next, at the latest
 * with the request's end.
 */
int rt_request_write(const char *bytes, size_t length, int flush)
{
	volatile int result = RT_OK;
	zend_try {
		if (sapi_module.ub_write(bytes, length) == length) {
			if (flush) {
				sapi_module.flush(SG(server_context));
			}
		} else {
			result = RT_EXCEPTION;
		}
	} zend_catch {
		result = RT_BAILOUT;
	} zend_end_try();
	return result;
}

static zif_handler rt_finish_original;
/* This request has been ended by its script. */
static bool rt_is_finished;

static ZEND_NAMED_FUNCTION(rt_finish_request)
{
	if (rt_web_busy()) {
		RETURN_FALSE;
	}
	rt_is_finished = true;
	if (rt_web_leave() == RT_BAILOUT) {
		rt_bailout();
	}
	rt_finish_original(INTERNAL_FUNCTION_PARAM_PASSTHRU);
}

/*
 * A request begins in a process that has no other threads. From the first one on fastcgi_finish_request() ends no request
 * while outcomes are to be written to it. Done once: another extension may do the same, and then calls ours.
 */
void rt_request_hold(void)
{
	static bool is_held = false;
	rt_is_finished = false;
	if (is_held) {
		return;
	}
	is_held = true;
	zend_function *finish = zend_hash_str_find_ptr(CG(function_table), ZEND_STRL("fastcgi_finish_request"));
	if (finish && finish->type == ZEND_INTERNAL_FUNCTION) {
		rt_finish_original = finish->internal_function.handler;
		finish->internal_function.handler = rt_finish_request;
	}
}

bool rt_request_is_finished(void)
{
	return rt_is_finished;
}
