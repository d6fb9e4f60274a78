//! The functions that are known to change nothing, by name.
//!
//! They are those of PostgreSQL's own catalogue that are declared immutable or stable, which can't write, and the volatile
//! ones that give a value and leave all data as it is. What isn't listed can't be told: functions of users and extensions,
//! and of the catalogue those that run SQL given as text (`query_to_xml`), reach into files (`lo_import`), into other
//! sessions (`pg_terminate_backend`) or into settings (`set_config`).
//!
//! Absent: a function of a user's own that carries a name listed here and takes other types. Nothing in the text tells it
//! apart.

/// Functions that give the same for the same arguments, within one statement at least.
const STEADY: &str = "\
    abs acos acosd acosh age array_append array_cat array_dims array_fill array_length \
    array_lower array_ndims array_position array_positions array_prepend array_remove \
    array_replace array_to_json array_to_string array_to_tsvector array_upper ascii asin asind \
    asinh atan atan2 atan2d atand atanh bit_count bit_length box bpchar btrim cardinality cbrt \
    ceil ceiling center char char_length character_length chr circle col_description concat \
    concat_ws convert convert_from convert_to cos cosd cosh cot cotd current_database \
    current_schema current_schemas current_setting date date_bin date_part date_trunc \
    datemultirange daterange decode degrees diagonal diameter div encode enum_first enum_last \
    enum_range exp extract factorial family float4 float8 floor format format_type gcd \
    generate_series generate_subscripts get_bit get_byte getdatabaseencoding \
    has_any_column_privilege has_column_privilege has_database_privilege has_function_privilege \
    has_schema_privilege has_sequence_privilege has_table_privilege has_type_privilege hashtext \
    hashtextextended height host hostmask inet_client_addr inet_client_port inet_merge \
    inet_same_family inet_server_addr inet_server_port initcap int2 int4 int4multirange \
    int4range int8 int8multirange int8range interval is_normalized isempty isfinite \
    json_array_elements json_array_elements_text json_array_length json_build_array \
    json_build_object json_each json_each_text json_extract_path json_extract_path_text \
    json_object json_object_keys json_populate_record json_populate_recordset json_strip_nulls \
    json_to_record json_to_recordset json_typeof jsonb_array_elements jsonb_array_elements_text \
    jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each jsonb_each_text \
    jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object jsonb_object_keys \
    jsonb_path_exists jsonb_path_exists_tz jsonb_path_match jsonb_path_match_tz jsonb_path_query \
    jsonb_path_query_array jsonb_path_query_first jsonb_populate_record jsonb_populate_recordset \
    jsonb_pretty jsonb_set jsonb_set_lax jsonb_strip_nulls jsonb_to_record jsonb_to_recordset \
    jsonb_typeof justify_days justify_hours justify_interval lcm left length ln log log10 lower \
    lower_inc lower_inf lpad lseg ltrim make_date make_interval make_time make_timestamp \
    make_timestamptz masklen md5 min_scale mod money multirange name netmask network normalize \
    now num_nonnulls num_nulls numeric nummultirange numnode numrange obj_description \
    octet_length overlay parse_ident path pg_backend_pid pg_client_encoding pg_collation_for \
    pg_column_compression pg_column_size pg_current_snapshot pg_current_xact_id \
    pg_current_xact_id_if_assigned pg_describe_object pg_encoding_to_char pg_filenode_relation \
    pg_function_is_visible pg_get_constraintdef pg_get_expr pg_get_function_arguments \
    pg_get_function_identity_arguments pg_get_function_result pg_get_functiondef pg_get_indexdef \
    pg_get_keywords pg_get_partkeydef pg_get_ruledef pg_get_serial_sequence \
    pg_get_statisticsobjdef pg_get_triggerdef pg_get_userbyid pg_get_viewdef pg_has_role \
    pg_is_other_temp_schema pg_my_temp_schema pg_partition_root pg_postmaster_start_time \
    pg_relation_filenode pg_size_bytes pg_size_pretty pg_snapshot_xip pg_snapshot_xmax \
    pg_snapshot_xmin pg_table_is_visible pg_timezone_names pg_trigger_depth pg_type_is_visible \
    pg_typeof pg_visible_in_snapshot pg_wal_lsn_diff pg_walfile_name phraseto_tsquery pi \
    plainto_tsquery point polygon position pow power querytree quote_ident quote_literal \
    quote_nullable radians radius range_merge regexp_count regexp_instr regexp_like regexp_match \
    regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr \
    repeat replace reverse right round row_security_active row_to_json rpad rtrim scale set_bit \
    set_byte set_masklen setweight sha224 sha256 sha384 sha512 shobj_description sign sin sind \
    sinh split_part sqrt starts_with statement_timestamp string_to_array string_to_table strip \
    strpos substr substring tan tand tanh text time timestamp timestamptz timetz to_ascii \
    to_char to_date to_hex to_json to_jsonb to_number to_regclass to_regnamespace to_regproc \
    to_regprocedure to_regrole to_regtype to_timestamp to_tsquery to_tsvector \
    transaction_timestamp translate trim_array trim_scale trunc ts_delete ts_filter ts_headline \
    ts_rank ts_rank_cd tsmultirange tsrange tstzmultirange tstzrange tsvector_to_array \
    txid_current txid_current_if_assigned txid_current_snapshot txid_snapshot_xmax \
    txid_snapshot_xmin txid_visible_in_snapshot unistr unnest upper upper_inc upper_inf varbit \
    varchar version websearch_to_tsquery width width_bucket xml_is_well_formed xmlcomment xpath \
    xpath_exists";

/// Aggregates, which make one value of many rows.
const AGGREGATES: &str = "\
    array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count covar_pop covar_samp every \
    json_agg json_object_agg jsonb_agg jsonb_object_agg max min mode percentile_cont \
    percentile_disc range_agg range_intersect_agg regr_avgx regr_avgy regr_count regr_intercept \
    regr_r2 regr_slope regr_sxx regr_sxy regr_syy stddev stddev_pop stddev_samp string_agg sum \
    var_pop var_samp variance xmlagg";

/// Functions that look at other rows of the result.
const WINDOW: &str = "\
    cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank \
    row_number";

/// Functions whose every call may give another value, and that change no row.
const VOLATILE: &str = "\
    clock_timestamp currval gen_random_uuid lastval nextval pg_blocking_pids \
    pg_current_wal_flush_lsn pg_current_wal_insert_lsn pg_current_wal_lsn pg_database_size \
    pg_indexes_size pg_is_in_recovery pg_is_wal_replay_paused pg_last_wal_receive_lsn pg_last_wal_replay_lsn \
    pg_last_xact_replay_timestamp pg_notify pg_partition_ancestors pg_partition_tree \
    pg_relation_size pg_sequence_last_value pg_sleep pg_sleep_for pg_sleep_until pg_table_size \
    pg_tablespace_size pg_total_relation_size pg_xact_status random setval timeofday txid_status";

/// Written like functions, and part of the grammar.
const SYNTAX: &str = "bernoulli coalesce greatest grouping least merge_action nullif system";

/// Functions whose value is another at each call, in each session or at each moment: what they gave a copy can never be
/// compared.
const UNSTEADY: &str = "\
    clock_timestamp current_database current_query current_schema current_schemas current_setting currval \
    gen_random_uuid inet_client_addr inet_client_port inet_server_addr inet_server_port lastval nextval now \
    pg_backend_pid pg_current_snapshot pg_current_wal_lsn pg_current_xact_id pg_current_xact_id_if_assigned \
    pg_postmaster_start_time pg_sleep pg_trigger_depth random random_normal setval statement_timestamp timeofday \
    transaction_timestamp txid_current txid_current_if_assigned txid_current_snapshot uuid_generate_v1 \
    uuid_generate_v1mc uuid_generate_v4 uuidv4 uuidv7";

fn lists(list: &str, name: &str) -> bool {
    list.split_ascii_whitespace().any(|known| known == name)
}

/// Whether a call of this function is known to change nothing.
pub(super) fn is_known(name: &str) -> bool {
    [STEADY, AGGREGATES, WINDOW, VOLATILE, SYNTAX].iter().any(|list| lists(list, name))
}

/// Whether each call gives a value of its own, so that a default by it is worked out row by row.
pub(super) fn is_volatile(name: &str) -> bool {
    lists(VOLATILE, name)
}

/// Whether it is taken over many rows.
pub(super) fn is_over_rows(name: &str) -> bool {
    lists(AGGREGATES, name) || lists(WINDOW, name)
}

/// Whether what it gives can't be had twice.
pub(super) fn is_unsteady(name: &str) -> bool {
    lists(UNSTEADY, name)
}
