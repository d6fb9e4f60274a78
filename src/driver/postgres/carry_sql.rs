//! What a table has that is nothing but catalogue, as statements that give it to the table which takes its place.
//!
//! Invariants:
//! - Every query gives rows of `(what, role, forward, back)`: `forward` gives it, under the names from after the renames;
//!   `back` takes exactly that away again, under the names from before them. `role` is who has to run both, where that is not
//!   the acting role.
//! - What the new table has of its own stays as it is: an author's word goes before what was.
//! - They are run with an empty `search_path`, so that every name in a definition is qualified.
//! - A column of the catalogue that came with PostgreSQL 14 or 15 is asked for in a subquery, without the table's name, and beside
//!   it stands a row called `older` that has one of the same name: where the server has none, that one is meant.
//!
//! Absent on purpose: what takes a build or a scan (`counterpart`), foreign keys (`incoming`), and what is made again from its
//! text (`remade`).

/// Both tables and the pairs of their columns. `$1` and `$2` are the old and the new table's oids; `$3` and `$4` names of
/// columns that answer to each other, `$5` whether the second has the first one's values; `$6` the old table's name afterwards,
/// qualified and quoted; `$7` whether the old table goes on being written.
const PRELUDE: &str = "\
WITH given AS (
  SELECT $1::bigint::oid AS o, $2::bigint::oid AS n, $3::text[] AS olds, $4::text[] AS news, $5::bool[] AS carried,
         $6::text AS aside, $7::bool AS goes_on
), t AS (
  SELECT g.*, format('%I.%I', ons.nspname, oc.relname) AS aft, format('%I.%I', nns.nspname, nc.relname) AS bef,
         oc.relowner AS oowner, nc.relowner AS nowner, oc.relacl AS oacl, coalesce(nc.relacl, acldefault('r', nc.relowner)) AS nacl,
         oc.relrowsecurity AS orls, nc.relrowsecurity AS nrls, oc.relforcerowsecurity AS oforce,
         nc.relforcerowsecurity AS nforce, oc.relreplident AS oident, nc.relreplident AS nident,
         oc.reloptions AS oopts, nc.reloptions AS nopts, oc.reltoastrelid AS otoast, nc.reltoastrelid AS ntoast
  FROM given g JOIN pg_class oc ON oc.oid = g.o JOIN pg_namespace ons ON ons.oid = oc.relnamespace
  JOIN pg_class nc ON nc.oid = g.n JOIN pg_namespace nns ON nns.oid = nc.relnamespace
), pair AS (
  SELECT p.carried, oa.attnum AS onum, na.attnum AS nnum, oa.attname AS oname, na.attname AS nname, oa.atttypid AS otype,
         na.atttypid AS ntype, oa.attacl AS oacl, na.attacl AS nacl, oa.attidentity AS oidentity,
         na.attidentity AS nidentity, na.attgenerated AS ngenerated, na.attnotnull AS nnotnull,
         oa.attstattarget AS ostat, na.attstattarget AS nstat, oa.attoptions AS oopts, na.attoptions AS nopts,
         oa.attstorage AS ostorage, na.attstorage AS nstorage,
         (SELECT attcompression::text FROM pg_attribute x WHERE x.attrelid = t.o AND x.attnum = oa.attnum) AS ocomp,
         (SELECT attcompression::text FROM pg_attribute x WHERE x.attrelid = t.n AND x.attnum = na.attnum) AS ncomp
  FROM t, (SELECT '' AS attcompression) AS older, unnest(t.olds, t.news, t.carried) AS p (old, new, carried)
  JOIN pg_attribute oa ON oa.attrelid = (SELECT o FROM given) AND oa.attname = p.old AND NOT oa.attisdropped
  JOIN pg_attribute na ON na.attrelid = (SELECT n FROM given) AND na.attname = p.new AND NOT na.attisdropped
)
";

/// The owner, the first of all: who owns a table grants what others have. What the new one was granted before goes up in what an
/// owner has, so it is granted again on the way back.
const OWNER: &str = "\
SELECT 'owner', NULL::text, format('ALTER TABLE %s OWNER TO %I', aft, pg_get_userbyid(oowner)),
       format('ALTER TABLE %s OWNER TO %I', bef, pg_get_userbyid(nowner)) || coalesce((
           SELECT string_agg(format('; GRANT %s%s ON TABLE %s TO %I%s', x.privilege_type, x.columns, bef, pg_get_userbyid(oowner),
                                    CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END), '' ORDER BY x.columns, x.privilege_type)
           FROM (SELECT y.*, '' AS columns FROM aclexplode(nacl) y
                 UNION ALL SELECT y.*, format(' (%I)', a.attname) FROM pg_attribute a, aclexplode(a.attacl) y
                 WHERE a.attrelid = n AND NOT a.attisdropped) x
           WHERE x.grantee = oowner), '')
FROM t WHERE oowner <> nowner";

/// Grants on the table. Those of the owner come first: others grant by what they were granted.
const GRANTS: &str = "\
SELECT 'grant', role, format('GRANT %s ON TABLE %s TO %s%s', privilege, aft, grantee, CASE WHEN grantable THEN ' WITH GRANT OPTION' ELSE '' END),
       CASE WHEN has_less THEN format('REVOKE GRANT OPTION FOR %s ON TABLE %s FROM %s', privilege, bef, grantee)
            ELSE format('REVOKE %s ON TABLE %s FROM %s', privilege, bef, grantee) || coalesce((
                SELECT string_agg(format('; GRANT %s (%I) ON TABLE %s TO %s%s', privilege, a.attname, bef, grantee,
                                         CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END), '' ORDER BY a.attnum)
                FROM pg_attribute a, aclexplode(a.attacl) x
                WHERE a.attrelid = g.n AND NOT a.attisdropped AND x.grantee = g.who AND x.privilege_type = privilege), '') END
FROM (
  SELECT t.n, t.aft, t.bef, a.privilege_type AS privilege, a.is_grantable AS grantable, a.grantee AS who, a.grantor,
         t.oowner, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee,
         CASE WHEN a.grantor <> t.oowner AND pg_has_role(a.grantor, 'MEMBER') THEN quote_ident(pg_get_userbyid(a.grantor)) END AS role,
         EXISTS (SELECT FROM aclexplode(t.nacl) x WHERE x.grantee = a.grantee AND x.privilege_type = a.privilege_type
                   AND (x.grantee <> t.nowner OR t.nowner = t.oowner)) AS has_less
  FROM t, aclexplode(t.oacl) a
  WHERE a.grantee <> t.oowner AND NOT EXISTS (
    SELECT FROM aclexplode(t.nacl) x WHERE x.grantee = a.grantee AND x.privilege_type = a.privilege_type
      AND (x.is_grantable OR NOT a.is_grantable) AND (x.grantee <> t.nowner OR t.nowner = t.oowner))
) g ORDER BY g.grantor <> g.oowner, g.grantor, g.who, privilege";

/// Grants on single columns.
const COLUMN_GRANTS: &str = "\
SELECT 'grant', CASE WHEN a.grantor <> t.oowner AND pg_has_role(a.grantor, 'MEMBER') THEN quote_ident(pg_get_userbyid(a.grantor)) END,
       format('GRANT %s (%I) ON TABLE %s TO %s%s', a.privilege_type, p.nname, t.aft, g.grantee,
              CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END),
       format('REVOKE %s%s (%I) ON TABLE %s FROM %s', CASE WHEN g.has_less THEN 'GRANT OPTION FOR ' ELSE '' END, a.privilege_type,
              p.nname, t.bef, g.grantee)
FROM t, pair p, aclexplode(p.oacl) a,
     LATERAL (SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee,
              EXISTS (SELECT FROM aclexplode(p.nacl) x WHERE x.grantee = a.grantee AND x.privilege_type = a.privilege_type) AS has_less) g
WHERE a.grantee <> t.oowner AND NOT EXISTS (
  SELECT FROM aclexplode(p.nacl) x WHERE x.grantee = a.grantee AND x.privilege_type = a.privilege_type
    AND (x.is_grantable OR NOT a.is_grantable))
ORDER BY a.grantor <> t.oowner, a.grantor, p.nnum, a.grantee, a.privilege_type";

/// What a key of the new table draws from, where that is a sequence of its own: whoever drew from the old one may draw from
/// it. An identity asks for no right, so there whoever may insert.
const SEQUENCE_GRANTS: &str = "\
SELECT 'grant', NULL::text, format('GRANT %s ON SEQUENCE %s TO %s%s', r.privilege, s.new_name, g.grantee,
              CASE WHEN r.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END),
       format('REVOKE %s%s ON SEQUENCE %s FROM %s', CASE WHEN g.has_less THEN 'GRANT OPTION FOR ' ELSE '' END, r.privilege,
              s.new_name, g.grantee)
FROM t, (
  SELECT DISTINCT oc.oid AS old_seq, oc.relacl AS old_acl, oc.relowner AS old_owner, nc.oid AS new_seq, nc.relacl AS new_acl,
         format('%I.%I', nn.nspname, nc.relname) AS new_name, p.oidentity <> '' AS was_identity
  FROM t, pair p, LATERAL (
    SELECT d.refobjid AS oid FROM pg_attrdef f JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid
      AND d.refclassid = 'pg_class'::regclass WHERE f.adrelid = t.o AND f.adnum = p.onum
    UNION SELECT d.objid FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'i'
      AND d.refclassid = 'pg_class'::regclass AND d.refobjid = t.o AND d.refobjsubid = p.onum) os
  JOIN pg_class oc ON oc.oid = os.oid AND oc.relkind = 'S', LATERAL (
    SELECT d.refobjid AS oid FROM pg_attrdef f JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid
      AND d.refclassid = 'pg_class'::regclass WHERE f.adrelid = t.n AND f.adnum = p.nnum) ns
  JOIN pg_class nc ON nc.oid = ns.oid AND nc.relkind = 'S' JOIN pg_namespace nn ON nn.oid = nc.relnamespace
  WHERE nc.oid <> oc.oid) s,
LATERAL (
  SELECT a.privilege_type AS privilege, a.grantee, a.is_grantable FROM aclexplode(s.old_acl) a
  WHERE NOT s.was_identity AND a.grantee <> s.old_owner
  UNION SELECT 'USAGE', a.grantee, false FROM aclexplode(t.oacl) a
  WHERE s.was_identity AND a.privilege_type = 'INSERT' AND a.grantee <> t.oowner) r,
LATERAL (SELECT CASE r.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r.grantee)) END AS grantee,
         EXISTS (SELECT FROM aclexplode(s.new_acl) x WHERE x.grantee = r.grantee AND x.privilege_type = r.privilege) AS has_less) g
WHERE NOT EXISTS (SELECT FROM aclexplode(s.new_acl) x WHERE x.grantee = r.grantee AND x.privilege_type = r.privilege
    AND (x.is_grantable OR NOT r.is_grantable))
ORDER BY s.new_name, g.grantee, r.privilege";

/// Row security and the policies. Their expressions name columns, and in subqueries maybe the table itself, as text that then
/// stands for the new table.
const SECURITY: &str = "\
SELECT 'policy', NULL::text, forward, back FROM (
  SELECT 1 AS at, '' AS name, format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', aft) AS forward,
         format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY', bef) AS back FROM t WHERE orls AND NOT nrls
  UNION ALL
  SELECT 2, '', format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', aft), format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', bef)
  FROM t WHERE oforce AND NOT nforce
  UNION ALL
  SELECT 3, p.polname, format('CREATE POLICY %I ON %s AS %s FOR %s TO %s%s%s', p.polname, t.aft,
           CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
           CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
           (SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', ') FROM unnest(p.polroles) r),
           coalesce(' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')', ''),
           coalesce(' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')', ''))
         || coalesce(format('; COMMENT ON POLICY %I ON %s IS %L', p.polname, t.aft, obj_description(p.oid, 'pg_policy')), ''),
         format('DROP POLICY %I ON %s', p.polname, t.bef)
  FROM t JOIN pg_policy p ON p.polrelid = t.o
  WHERE NOT EXISTS (SELECT FROM pg_policy x WHERE x.polrelid = t.n AND x.polname = p.polname)
) s ORDER BY at, name";

/// Comments on the table, its columns, its constraints, indexes and extended statistics that are defined alike, its triggers of
/// the same name.
const COMMENTS: &str = "\
SELECT 'comment', NULL::text, format('COMMENT ON %s IS %L', c.after, c.text), format('COMMENT ON %s IS NULL', c.before) FROM t, LATERAL (
  SELECT 1 AS at, '' AS name, 'TABLE ' || aft AS after, 'TABLE ' || bef AS before, obj_description(o, 'pg_class') AS text,
         obj_description(n, 'pg_class') AS own
  UNION ALL
  SELECT 2, p.nname, format('COLUMN %s.%I', aft, p.nname), format('COLUMN %s.%I', bef, p.nname), col_description(o, p.onum),
         col_description(n, p.nnum) FROM pair p
  UNION ALL
  SELECT 3, nk.conname, format('CONSTRAINT %I ON %s', nk.conname, aft), format('CONSTRAINT %I ON %s', nk.conname, bef),
         obj_description(ok.oid, 'pg_constraint'), obj_description(nk.oid, 'pg_constraint')
  FROM pg_constraint ok JOIN pg_constraint nk ON nk.conrelid = n AND nk.contype = ok.contype
    AND replace(pg_get_constraintdef(nk.oid), ' NOT VALID', '')
      = replace(replace(pg_get_constraintdef(ok.oid), ' NOT VALID', ''), ' REFERENCES ' || aft || '(', ' REFERENCES ' || bef || '(')
  WHERE ok.conrelid = o
  UNION ALL
  SELECT 4, nc.relname, format('INDEX %I.%I', nn.nspname, nc.relname), format('INDEX %I.%I', nn.nspname, nc.relname),
         obj_description(oi.indexrelid, 'pg_class'), obj_description(ni.indexrelid, 'pg_class')
  FROM pg_index oi JOIN pg_index ni ON ni.indrelid = n AND ni.indisprimary = oi.indisprimary AND ni.indisunique = oi.indisunique
    AND substring(pg_get_indexdef(ni.indexrelid) FROM ' USING .*') = substring(pg_get_indexdef(oi.indexrelid) FROM ' USING .*')
  JOIN pg_class nc ON nc.oid = ni.indexrelid JOIN pg_namespace nn ON nn.oid = nc.relnamespace
  WHERE oi.indrelid = o
  UNION ALL
  SELECT 5, nt.tgname, format('TRIGGER %I ON %s', nt.tgname, aft), format('TRIGGER %I ON %s', nt.tgname, bef),
         obj_description(ot.oid, 'pg_trigger'), obj_description(nt.oid, 'pg_trigger')
  FROM pg_trigger ot JOIN pg_trigger nt ON nt.tgrelid = n AND nt.tgname = ot.tgname
  WHERE ot.tgrelid = o AND NOT ot.tgisinternal AND NOT nt.tgisinternal
  UNION ALL
  SELECT 6, nx.stxname, format('STATISTICS %I.%I', nn.nspname, nx.stxname), format('STATISTICS %I.%I', nn.nspname, nx.stxname),
         obj_description(ox.oid, 'pg_statistic_ext'), obj_description(nx.oid, 'pg_statistic_ext')
  FROM pg_statistic_ext ox JOIN pg_statistic_ext nx ON nx.stxrelid = n AND nx.stxkind = ox.stxkind
    AND substring(pg_get_statisticsobjdef(nx.oid) FROM ' ON (.*) FROM ') = substring(pg_get_statisticsobjdef(ox.oid) FROM ' ON (.*) FROM ')
  JOIN pg_namespace nn ON nn.oid = nx.stxnamespace
  WHERE ox.stxrelid = o
) c WHERE c.text IS NOT NULL AND c.own IS NULL ORDER BY c.at, c.name";

/// Publications that name the table: the new one takes its place in them, with the same columns and rows.
const PUBLICATIONS: &str = "\
SELECT 'publication', NULL::text,
       concat_ws('; ', CASE WHEN NOT s.is_in THEN format('ALTER PUBLICATION %I ADD TABLE %s%s%s', s.pubname, s.aft,
                     coalesce(' (' || s.news || ')', ''), coalesce(' WHERE ' || s.filter, '')) END,
                 CASE WHEN s.may THEN format('ALTER PUBLICATION %I DROP TABLE %s', s.pubname, s.aside) END),
       concat_ws('; ', CASE WHEN NOT s.is_in THEN format('ALTER PUBLICATION %I DROP TABLE %s', s.pubname, s.bef) END,
                 CASE WHEN s.may THEN format('ALTER PUBLICATION %I ADD TABLE %s%s%s', s.pubname, s.aft,
                     coalesce(' (' || s.olds || ')', ''), coalesce(' WHERE ' || s.filter, '')) END)
FROM (
  SELECT p.pubname, t.aft, t.bef, t.aside,
         EXISTS (SELECT FROM pg_publication_rel x WHERE x.prpubid = p.oid AND x.prrelid = t.n) AS is_in,
         pg_has_role(p.pubowner, 'USAGE') OR NOT EXISTS (
           SELECT FROM pg_publication_rel x WHERE x.prpubid = p.oid AND x.prrelid = t.n) AS may,
         (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY k.at) FROM unnest(r.columns) WITH ORDINALITY k (num, at)
          JOIN pg_attribute a ON a.attrelid = t.o AND a.attnum = k.num) AS olds,
         (SELECT string_agg(quote_ident(coalesce(x.nname, a.attname)), ', ' ORDER BY k.at)
          FROM unnest(r.columns) WITH ORDINALITY k (num, at)
          JOIN pg_attribute a ON a.attrelid = t.o AND a.attnum = k.num LEFT JOIN pair x ON x.onum = k.num) AS news,
         '(' || pg_get_expr(r.filter, t.o) || ')' AS filter
  FROM t, (SELECT NULL::int2vector AS prattrs, NULL::pg_node_tree AS prqual) AS older,
  LATERAL (SELECT x.prpubid, prattrs::int2[] AS columns, prqual AS filter FROM pg_publication_rel x WHERE x.prrelid = t.o) r
  JOIN pg_publication p ON p.oid = r.prpubid
) s WHERE s.may OR NOT s.is_in ORDER BY s.pubname";

/// What [`REPLICA_IDENTITY`] calls what it gives.
pub(super) const REPLICA_IDENTITY_SAID: &str = "replica identity";

/// What updates and deletes write to the log of the old row. The server asks each partition for its own, so those of a new
/// table that say nothing of it get it, too.
const REPLICA_IDENTITY: &str = "\
SELECT 'replica identity', NULL::text,
       format('ALTER TABLE %s REPLICA IDENTITY %s', t.aft, w.word) || coalesce(l.forward, ''),
       format('ALTER TABLE %s REPLICA IDENTITY DEFAULT', t.bef) || coalesce(l.back, '')
FROM t LEFT JOIN LATERAL (
  SELECT nc.oid, nc.relname FROM pg_index oi JOIN pg_index ni ON ni.indrelid = t.n AND ni.indisunique AND ni.indimmediate AND ni.indisvalid
    AND ni.indpred IS NULL
    AND substring(pg_get_indexdef(ni.indexrelid) FROM ' USING .*') = substring(pg_get_indexdef(oi.indexrelid) FROM ' USING .*')
  JOIN pg_class nc ON nc.oid = ni.indexrelid
  WHERE oi.indrelid = t.o AND oi.indisreplident ORDER BY ni.indexrelid LIMIT 1) i ON true,
LATERAL (SELECT CASE t.oident WHEN 'f' THEN 'FULL' WHEN 'n' THEN 'NOTHING' ELSE format('USING INDEX %I', i.relname) END AS word) w,
LATERAL (
  SELECT string_agg(format('; ALTER TABLE %I.%I REPLICA IDENTITY %s', ns.nspname, c.relname,
           CASE WHEN t.oident = 'i' THEN format('USING INDEX %I', x.relname) ELSE w.word END), '' ORDER BY c.oid) AS forward,
         string_agg(format('; ALTER TABLE %I.%I REPLICA IDENTITY DEFAULT', ns.nspname, c.relname), '' ORDER BY c.oid) AS back
  FROM pg_partition_tree(t.n::regclass) p JOIN pg_class c ON c.oid = p.relid JOIN pg_namespace ns ON ns.oid = c.relnamespace
  LEFT JOIN LATERAL (SELECT ic.relname FROM pg_partition_tree(i.oid::regclass) ip JOIN pg_index pi ON pi.indexrelid = ip.relid
    JOIN pg_class ic ON ic.oid = ip.relid WHERE pi.indrelid = c.oid) x ON true
  WHERE p.level > 0 AND c.relkind IN ('r', 'p') AND c.relreplident = 'd' AND (t.oident <> 'i' OR x.relname IS NOT NULL)) l
WHERE t.nident = 'd' AND (t.oident IN ('f', 'n') OR t.oident = 'i' AND i.relname IS NOT NULL)";

/// The index by which CLUSTER orders the rows, where the new table has one that is defined alike.
const CLUSTERED: &str = "\
SELECT 'clustering', NULL::text, format('ALTER TABLE %s CLUSTER ON %I', t.aft, nc.relname), format('ALTER TABLE %s SET WITHOUT CLUSTER', t.bef)
FROM t JOIN pg_index oi ON oi.indrelid = t.o AND oi.indisclustered
JOIN pg_index ni ON ni.indrelid = t.n AND ni.indisvalid
  AND substring(pg_get_indexdef(ni.indexrelid) FROM ' USING .*') = substring(pg_get_indexdef(oi.indexrelid) FROM ' USING .*')
JOIN pg_class nc ON nc.oid = ni.indexrelid AND nc.relkind = 'i'
WHERE NOT EXISTS (SELECT FROM pg_index x WHERE x.indrelid = t.n AND x.indisclustered) ORDER BY ni.indexrelid LIMIT 1";

/// How much extended statistics that are defined alike gather.
const STATISTICS: &str = "\
SELECT 'statistics target', NULL::text, format('ALTER STATISTICS %I.%I SET STATISTICS %s', nn.nspname, nx.stxname, ox.stxstattarget),
       format('ALTER STATISTICS %I.%I SET STATISTICS -1', nn.nspname, nx.stxname)
FROM t JOIN pg_statistic_ext ox ON ox.stxrelid = t.o JOIN pg_statistic_ext nx ON nx.stxrelid = t.n AND nx.stxkind = ox.stxkind
  AND substring(pg_get_statisticsobjdef(nx.oid) FROM ' ON (.*) FROM ') = substring(pg_get_statisticsobjdef(ox.oid) FROM ' ON (.*) FROM ')
JOIN pg_namespace nn ON nn.oid = nx.stxnamespace
WHERE coalesce(ox.stxstattarget, -1) <> -1 AND coalesce(nx.stxstattarget, -1) = -1 ORDER BY nx.stxname";

/// How much is gathered for the expressions of indexes that are defined alike.
const INDEX_STATISTICS: &str = "\
SELECT 'statistics target', NULL::text, format('ALTER INDEX %I.%I ALTER COLUMN %s SET STATISTICS %s', nn.nspname, nc.relname, oa.attnum, oa.attstattarget),
       format('ALTER INDEX %I.%I ALTER COLUMN %s SET STATISTICS -1', nn.nspname, nc.relname, oa.attnum)
FROM t JOIN pg_index oi ON oi.indrelid = t.o JOIN pg_index ni ON ni.indrelid = t.n AND ni.indisunique = oi.indisunique
  AND substring(pg_get_indexdef(ni.indexrelid) FROM ' USING .*') = substring(pg_get_indexdef(oi.indexrelid) FROM ' USING .*')
JOIN pg_class nc ON nc.oid = ni.indexrelid JOIN pg_namespace nn ON nn.oid = nc.relnamespace
JOIN pg_attribute oa ON oa.attrelid = oi.indexrelid JOIN pg_attribute na ON na.attrelid = ni.indexrelid AND na.attnum = oa.attnum
WHERE coalesce(oa.attstattarget, -1) <> -1 AND coalesce(na.attstattarget, -1) = -1
ORDER BY nc.relname, oa.attnum";

/// Names of constraints that clients may name (ON CONFLICT ON CONSTRAINT) or are told: those that are made of an index change
/// theirs with what is defined alike, since no two indexes of a schema have one name.
const NAMES: &str = "\
SELECT 'name of a constraint', NULL::text,
       format('ALTER TABLE %1$s RENAME CONSTRAINT %3$I TO %5$I; ALTER TABLE %2$s RENAME CONSTRAINT %4$I TO %3$I; ALTER TABLE %1$s RENAME CONSTRAINT %5$I TO %4$I',
         t.aside, t.aft, k.was, k.new, 'phasegate_' || k.oid),
       format('ALTER TABLE %1$s RENAME CONSTRAINT %4$I TO %5$I; ALTER TABLE %2$s RENAME CONSTRAINT %3$I TO %4$I; ALTER TABLE %1$s RENAME CONSTRAINT %5$I TO %3$I',
         t.aft, t.bef, k.was, k.new, 'phasegate_' || k.oid)
FROM t, LATERAL (
  SELECT ok.oid, ok.conname AS was, nk.conname AS new FROM (
    SELECT x.*, row_number() OVER w AS at, pg_get_constraintdef(x.oid) AS definition FROM pg_constraint x
    WHERE x.conrelid = t.o AND x.contype IN ('p', 'u', 'x') WINDOW w AS (PARTITION BY x.contype, pg_get_constraintdef(x.oid) ORDER BY x.oid)) ok
  JOIN (
    SELECT x.*, row_number() OVER w AS at, pg_get_constraintdef(x.oid) AS definition FROM pg_constraint x
    WHERE x.conrelid = t.n AND x.contype IN ('p', 'u', 'x') WINDOW w AS (PARTITION BY x.contype, pg_get_constraintdef(x.oid) ORDER BY x.oid)) nk
    ON nk.contype = ok.contype AND nk.definition = ok.definition AND nk.at = ok.at
  WHERE ok.connamespace = nk.connamespace AND ok.conname <> nk.conname) k
ORDER BY k.was";

/// How columns are kept and counted.
const COLUMNS: &str = "\
SELECT 'setting of a column', NULL::text, format('ALTER TABLE %s ALTER COLUMN %I %s', t.aft, p.nname, c.forward),
       format('ALTER TABLE %s ALTER COLUMN %I %s', t.bef, p.nname, c.back)
FROM t, pair p, LATERAL (
  SELECT 1 AS at, format('SET STATISTICS %s', p.ostat) AS forward, 'SET STATISTICS -1' AS back
  WHERE coalesce(p.ostat, -1) <> -1 AND coalesce(p.nstat, -1) = -1
  UNION ALL
  SELECT 2, format('SET (%s)', array_to_string(p.oopts, ', ')),
         format('RESET (%s)', (SELECT string_agg(split_part(u.o, '=', 1), ', ') FROM unnest(p.oopts) u (o)))
  WHERE p.oopts IS NOT NULL AND p.nopts IS NULL
  UNION ALL
  SELECT 3, format('SET STORAGE %s', s.name), format('SET STORAGE %s', b.name)
  FROM pg_type y, (VALUES ('p', 'PLAIN'), ('e', 'EXTERNAL'), ('m', 'MAIN'), ('x', 'EXTENDED')) s (letter, name),
       (VALUES ('p', 'PLAIN'), ('e', 'EXTERNAL'), ('m', 'MAIN'), ('x', 'EXTENDED')) b (letter, name)
  WHERE y.oid = p.otype AND p.otype = p.ntype AND s.letter = p.ostorage::text AND b.letter = p.nstorage::text
    AND p.ostorage <> y.typstorage AND p.nstorage = y.typstorage
  UNION ALL
  SELECT 4, format('SET COMPRESSION %s', CASE p.ocomp WHEN 'p' THEN 'pglz' ELSE 'lz4' END), 'SET COMPRESSION DEFAULT'
  WHERE p.ocomp IN ('p', 'l') AND p.ncomp NOT IN ('p', 'l') AND p.otype = p.ntype
) c ORDER BY p.nnum, c.at";

/// The table's own storage parameters that the new one doesn't set. A partitioned table has none; its partitions have theirs.
const OPTIONS: &str = "\
SELECT 'storage parameter', NULL::text, format('ALTER TABLE %s SET (%s%s)', aft, prefix, option),
       format('ALTER TABLE %s RESET (%s%s)', bef, prefix, split_part(option, '=', 1))
FROM (
  SELECT t.aft, t.bef, '' AS prefix, u.option, t.nopts AS own FROM t JOIN pg_class nc ON nc.oid = t.n AND nc.relkind = 'r',
    unnest(t.oopts) u (option)
  UNION ALL
  SELECT t.aft, t.bef, 'toast.', u.option, nc.reloptions FROM t JOIN pg_class oc ON oc.oid = t.otoast
  JOIN pg_class nc ON nc.oid = t.ntoast, unnest(oc.reloptions) u (option)
) s WHERE NOT EXISTS (SELECT FROM unnest(own) x WHERE split_part(x, '=', 1) = split_part(option, '=', 1))
ORDER BY prefix, option";

/// Defaults of columns that have the old ones' values and no default of their own.
const DEFAULTS: &str = "\
SELECT 'default', NULL::text, format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %s', t.aft, p.nname, pg_get_expr(f.adbin, f.adrelid)),
       format('ALTER TABLE %s ALTER COLUMN %I DROP DEFAULT', t.bef, p.nname)
FROM t, pair p JOIN pg_attrdef f ON f.adrelid = (SELECT o FROM given) AND f.adnum = p.onum
JOIN pg_attribute oa ON oa.attrelid = f.adrelid AND oa.attnum = f.adnum AND oa.attgenerated = ''
WHERE p.carried AND p.nidentity = '' AND p.ngenerated = ''
  AND NOT EXISTS (SELECT FROM pg_attrdef x WHERE x.adrelid = t.n AND x.adnum = p.nnum)
ORDER BY p.nnum";

/// Identities of columns that have the old ones' values, or take their names, and no default of their own. An end that was
/// the old type's is the new one's.
const IDENTITIES: &str = "\
SELECT 'identity', NULL::text,
       format('ALTER TABLE %s ALTER COLUMN %I ADD GENERATED %s AS IDENTITY (START %s INCREMENT %s %s %s CACHE %s %s)',
         t.aft, p.nname, CASE p.oidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END, q.seqstart, q.seqincrement,
         CASE WHEN q.seqincrement < 0 AND q.seqmin = e.least THEN 'NO MINVALUE' ELSE 'MINVALUE ' || q.seqmin END,
         CASE WHEN q.seqincrement > 0 AND q.seqmax = e.most THEN 'NO MAXVALUE' ELSE 'MAXVALUE ' || q.seqmax END,
         q.seqcache, CASE WHEN q.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END),
       format('ALTER TABLE %s ALTER COLUMN %I DROP IDENTITY', t.bef, p.nname)
FROM t, pair p JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.deptype = 'i'
  AND d.refclassid = 'pg_class'::regclass AND d.refobjid = (SELECT o FROM given) AND d.refobjsubid = p.onum
JOIN pg_sequence q ON q.seqrelid = d.objid
JOIN (VALUES ('int2'::regtype, -32768::int8, 32767::int8), ('int4', -2147483648, 2147483647),
     ('int8', -9223372036854775808, 9223372036854775807)) e (type, least, most) ON e.type = q.seqtypid
WHERE (p.carried OR t.o = t.n) AND p.oidentity <> '' AND p.nidentity = '' AND p.ngenerated = '' AND p.nnotnull
  AND p.ntype IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
  AND NOT EXISTS (SELECT FROM pg_attrdef x WHERE x.adrelid = t.n AND x.adnum = p.nnum)
ORDER BY p.nnum";

/// Sequences that would end with the old column's type, though the new column goes on behind it.
const WIDER: &str = "\
SELECT DISTINCT 'type of a sequence', NULL::text, format('ALTER SEQUENCE %I.%I AS %s', n.nspname, s.relname, format_type(p.ntype, NULL)),
       format('ALTER SEQUENCE %I.%I AS %s', n.nspname, s.relname, format_type(q.seqtypid, NULL))
FROM t, pair p JOIN pg_attrdef f ON f.adrelid = (SELECT o FROM given) AND f.adnum = p.onum
JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_class'::regclass
JOIN pg_class s ON s.oid = d.refobjid AND s.relkind = 'S' JOIN pg_namespace n ON n.oid = s.relnamespace
JOIN pg_sequence q ON q.seqrelid = s.oid
JOIN (VALUES ('int2'::regtype, 1, -32768::int8, 32767::int8), ('int4', 2, -2147483648, 2147483647), ('int8', 3, 0, 0)) e (type, rank, least, most)
  ON e.type = q.seqtypid
JOIN (VALUES ('int2'::regtype, 1), ('int4', 2), ('int8', 3)) w (type, rank) ON w.type = p.ntype
WHERE w.rank > e.rank AND CASE WHEN q.seqincrement > 0 THEN q.seqmax = e.most ELSE q.seqmin = e.least END
  AND p.nidentity = '' AND CASE WHEN EXISTS (SELECT FROM pg_attrdef x WHERE x.adrelid = t.n AND x.adnum = p.nnum)
    THEN EXISTS (SELECT FROM pg_attrdef x JOIN pg_depend y ON y.classid = 'pg_attrdef'::regclass AND y.objid = x.oid
      WHERE x.adrelid = t.n AND x.adnum = p.nnum AND y.refclassid = 'pg_class'::regclass AND y.refobjid = s.oid)
    ELSE p.carried END
ORDER BY 3";

/// What [`PRIMARY_KEY`] calls what it gives.
pub(super) const PRIMARY_KEY_SAID: &str = "primary key";

/// The primary key of a table whose columns others take the names of: it passes to an index that stands ready, and back to
/// another one that does.
const PRIMARY_KEY: &str = "\
SELECT 'primary key', NULL::text,
       format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %I PRIMARY KEY USING INDEX %I%s%s', t.aft, k.conname, k.conname,
              ready.relname, u.tail, u.more),
       format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %I PRIMARY KEY USING INDEX %I%s%s', t.aft, k.conname, k.conname,
              kept.relname, u.tail, u.more)
FROM t JOIN pg_constraint k ON k.conrelid = t.o AND k.contype = 'p' JOIN pg_index i ON i.indexrelid = k.conindid
JOIN pg_class ic ON ic.oid = i.indexrelid JOIN pg_namespace ns ON ns.oid = ic.relnamespace,
LATERAL (SELECT string_agg(coalesce(p.nnum, c.num)::text, ' ' ORDER BY c.at) AS news, bool_or(p.nnum IS NOT NULL) AS is_over
  FROM unnest(i.indkey::int2[]) WITH ORDINALITY c (num, at) LEFT JOIN pair p ON p.onum = c.num) m,
LATERAL (SELECT c.relname FROM pg_index r JOIN pg_class c ON c.oid = r.indexrelid WHERE r.indrelid = t.o
  AND r.indkey::text = m.news AND r.indnkeyatts = i.indnkeyatts AND r.indisunique AND r.indisvalid AND r.indimmediate
  AND r.indpred IS NULL AND NOT EXISTS (SELECT FROM pg_constraint x WHERE x.conindid = r.indexrelid AND x.contype IN ('p', 'u', 'x'))
  ORDER BY r.indexrelid LIMIT 1) ready,
LATERAL (SELECT c.relname FROM pg_index r JOIN pg_class c ON c.oid = r.indexrelid WHERE r.indrelid = t.o
  AND r.indkey::text = i.indkey::text AND r.indnkeyatts = i.indnkeyatts AND r.indisunique AND r.indisvalid AND r.indimmediate
  AND r.indpred IS NULL AND NOT EXISTS (SELECT FROM pg_constraint x WHERE x.conindid = r.indexrelid AND x.contype IN ('p', 'u', 'x'))
  ORDER BY r.indexrelid LIMIT 1) kept,
LATERAL (SELECT CASE WHEN k.condeferrable THEN ' DEFERRABLE' ELSE '' END || CASE WHEN k.condeferred THEN ' INITIALLY DEFERRED' ELSE '' END AS tail,
  concat(CASE WHEN i.indisreplident AND t.oident = 'i' THEN format('; ALTER TABLE %s REPLICA IDENTITY USING INDEX %I', t.aft, k.conname) END,
    CASE WHEN i.indisclustered THEN format('; ALTER TABLE %s CLUSTER ON %I', t.aft, k.conname) END,
    format('; COMMENT ON CONSTRAINT %I ON %s IS %L', k.conname, t.aft, obj_description(k.oid, 'pg_constraint')),
    format('; COMMENT ON INDEX %I.%I IS %L', ns.nspname, k.conname, obj_description(i.indexrelid, 'pg_class'))) AS more) u
WHERE m.is_over";

/// The replica identity by an index over columns that others take the names of.
const REPLICA_INDEX: &str = "\
SELECT 'replica identity', NULL::text, format('ALTER TABLE %s REPLICA IDENTITY USING INDEX %I', t.aft, ready.relname),
       format('ALTER TABLE %s REPLICA IDENTITY USING INDEX %I', t.aft, ic.relname)
FROM t JOIN pg_index i ON i.indrelid = t.o AND i.indisreplident AND NOT i.indisprimary JOIN pg_class ic ON ic.oid = i.indexrelid,
LATERAL (SELECT string_agg(coalesce(p.nnum, c.num)::text, ' ' ORDER BY c.at) AS news, bool_or(p.nnum IS NOT NULL) AS is_over
  FROM unnest(i.indkey::int2[]) WITH ORDINALITY c (num, at) LEFT JOIN pair p ON p.onum = c.num) m,
LATERAL (SELECT c.relname FROM pg_index r JOIN pg_class c ON c.oid = r.indexrelid WHERE r.indrelid = t.o
  AND r.indkey::text = m.news AND r.indnkeyatts = i.indnkeyatts AND r.indisunique AND r.indisvalid AND r.indimmediate
  AND r.indpred IS NULL ORDER BY r.indexrelid LIMIT 1) ready
WHERE t.oident = 'i' AND m.is_over";

/// The names of UNIQUE constraints over columns that others take the names of: they change them with what stands over the new
/// ones. The one that holds from now on is described as the other.
const COLUMN_NAMES: &str = "\
SELECT 'name of a constraint', NULL::text,
       format('ALTER TABLE %1$s RENAME CONSTRAINT %2$I TO %4$I; ALTER TABLE %1$s RENAME CONSTRAINT %3$I TO %2$I; ALTER TABLE %1$s RENAME CONSTRAINT %4$I TO %3$I',
         t.aft, ok.conname, nk.conname, 'phasegate_' || ok.oid) || coalesce(format('; COMMENT ON CONSTRAINT %I ON %s IS %L', ok.conname, t.aft, c.text), ''),
       CASE WHEN c.text IS NOT NULL THEN format('COMMENT ON CONSTRAINT %I ON %s IS NULL; ', ok.conname, t.aft) ELSE '' END
         || format('ALTER TABLE %1$s RENAME CONSTRAINT %2$I TO %4$I; ALTER TABLE %1$s RENAME CONSTRAINT %3$I TO %2$I; ALTER TABLE %1$s RENAME CONSTRAINT %4$I TO %3$I',
         t.aft, ok.conname, nk.conname, 'phasegate_' || ok.oid)
FROM t JOIN pg_constraint ok ON ok.conrelid = t.o AND ok.contype = 'u' JOIN pg_index oi ON oi.indexrelid = ok.conindid,
LATERAL (SELECT string_agg(coalesce(p.nnum, c.num)::text, ' ' ORDER BY c.at) AS news, bool_or(p.nnum IS NOT NULL) AS is_over
  FROM unnest(oi.indkey::int2[]) WITH ORDINALITY c (num, at) LEFT JOIN pair p ON p.onum = c.num) m,
LATERAL (SELECT x.* FROM pg_constraint x JOIN pg_index i ON i.indexrelid = x.conindid
  WHERE x.conrelid = t.o AND x.contype = 'u' AND x.condeferrable = ok.condeferrable AND x.condeferred = ok.condeferred
    AND i.indkey::text = m.news AND i.indnkeyatts = oi.indnkeyatts ORDER BY x.oid LIMIT 1) nk,
LATERAL (SELECT CASE WHEN obj_description(nk.oid, 'pg_constraint') IS NULL THEN obj_description(ok.oid, 'pg_constraint') END AS text) c
WHERE m.is_over AND t.o = t.n ORDER BY ok.conname";

/// Triggers of users that stand on both tables and were kept disabled on the new one until now. Where the old table goes on
/// being written by the sync they change places, so that each write goes on firing them once. One that nobody gave a mode on the
/// new table has that of the old one: a trigger for replicas must not fire for clients.
const TRIGGERS: &str = "\
SELECT 'trigger', NULL::text,
       format('ALTER TABLE %s ENABLE %sTRIGGER %I', t.aft, k.kind, n.tgname)
         || CASE WHEN t.goes_on AND n.tgenabled = 'D' THEN format('; ALTER TABLE %s DISABLE TRIGGER %I', t.aside, o.tgname) ELSE '' END,
       format('ALTER TABLE %s %s TRIGGER %I', t.bef, CASE n.tgenabled WHEN 'D' THEN 'DISABLE' ELSE 'ENABLE' END, n.tgname)
         || CASE WHEN t.goes_on AND n.tgenabled = 'D' THEN format('; ALTER TABLE %s ENABLE %sTRIGGER %I', t.aft, k.kind, o.tgname) ELSE '' END
FROM t JOIN pg_trigger o ON o.tgrelid = t.o AND NOT o.tgisinternal AND o.tgenabled <> 'D'
JOIN pg_trigger n ON n.tgrelid = t.n AND NOT n.tgisinternal AND (n.tgenabled = 'D' OR n.tgenabled = 'O' AND o.tgenabled <> 'O')
  AND replace(replace(pg_get_triggerdef(n.oid), 'TRIGGER ' || quote_ident(n.tgname) || ' ', 'TRIGGER % '), ' ON ' || t.bef || ' ', ' ON % ')
    = replace(replace(pg_get_triggerdef(o.oid), 'TRIGGER ' || quote_ident(o.tgname) || ' ', 'TRIGGER % '), ' ON ' || t.aft || ' ', ' ON % '),
LATERAL (SELECT CASE o.tgenabled WHEN 'A' THEN 'ALWAYS ' WHEN 'R' THEN 'REPLICA ' ELSE '' END AS kind) k
WHERE NOT EXISTS (
  SELECT FROM pg_trigger x WHERE x.tgrelid = t.n AND NOT x.tgisinternal AND x.tgenabled <> 'D' AND x.oid <> n.oid
    AND replace(replace(pg_get_triggerdef(x.oid), 'TRIGGER ' || quote_ident(x.tgname) || ' ', 'TRIGGER % '), ' ON ' || t.bef || ' ', ' ON % ')
      = replace(replace(pg_get_triggerdef(o.oid), 'TRIGGER ' || quote_ident(o.tgname) || ' ', 'TRIGGER % '), ' ON ' || t.aft || ' ', ' ON % '))
ORDER BY o.tgname";

/// Everything that a table which takes another's place is given, in the order in which it is given. Indexes and constraints
/// are there already.
const OF_TABLES: [&str; 18] = [
    OWNER,
    WIDER,
    DEFAULTS,
    IDENTITIES,
    GRANTS,
    COLUMN_GRANTS,
    SEQUENCE_GRANTS,
    SECURITY,
    COMMENTS,
    REPLICA_IDENTITY,
    PUBLICATIONS,
    COLUMNS,
    STATISTICS,
    INDEX_STATISTICS,
    CLUSTERED,
    OPTIONS,
    TRIGGERS,
    // Whatever else names them names them as they were.
    NAMES,
];

/// What a column is given that takes the place of another one of its own table.
const OF_COLUMNS: [&str; 8] =
    [WIDER, IDENTITIES, REPLICA_INDEX, PRIMARY_KEY, COLUMN_GRANTS, COLUMNS, COMMENTS, COLUMN_NAMES];

/// The query for rights on what the new table draws from.
pub(super) fn of_sequences() -> String {
    format!("{PRELUDE}{SEQUENCE_GRANTS}")
}

/// The queries for a table that takes another's place without its name.
pub(super) fn of_nameless() -> impl Iterator<Item = String> {
    std::iter::once(format!("{PRELUDE}{TRIGGERS}"))
}

/// The queries for a table that takes another's place.
pub(super) fn of_tables() -> impl Iterator<Item = String> {
    OF_TABLES.iter().map(|query| format!("{PRELUDE}{query}"))
}

/// The queries for columns that take others' places.
pub(super) fn of_columns() -> impl Iterator<Item = String> {
    OF_COLUMNS.iter().map(|query| format!("{PRELUDE}{query}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use sqlx::{AssertSqlSafe, Connection as _, Row as _};

    use super::super::fixture::{Database, OLDER};
    use super::*;

    /// What the queries give, on a catalogue of today and on one of PostgreSQL 13.
    #[tokio::test]
    async fn an_older_catalogue_is_read_like_one_of_today() {
        let setup = "CREATE TABLE t (id int PRIMARY KEY, email text DEFAULT 'x'); CREATE TABLE t2 (id int PRIMARY KEY, email text);
            CREATE PUBLICATION p FOR TABLE t; CREATE PUBLICATION q FOR TABLE t (id) WHERE (id > 0);
            GRANT SELECT ON t TO PUBLIC; ALTER TABLE t ALTER email SET STATISTICS 7, ALTER email SET COMPRESSION pglz;";
        let Some(database) = Database::with(&format!("{setup}{OLDER}")).await else { return };
        let mut conn = database.client().await;
        let oids = "SELECT 't'::regclass::oid::bigint, 't2'::regclass::oid::bigint";
        let row = sqlx::query(oids).fetch_one(&mut conn).await.unwrap();
        let (old, new): (i64, i64) = (row.get(0), row.get(1));
        let mut given = Vec::new();
        for path in ["pg_catalog", "older, pg_catalog"] {
            sqlx::query("SELECT set_config('search_path', $1, false)")
                .bind(path)
                .execute(&mut conn)
                .await
                .unwrap();
            let mut lines: Vec<String> = Vec::new();
            for query in of_tables().chain(of_columns()).chain(of_nameless()) {
                let rows = sqlx::query(AssertSqlSafe(query))
                    .bind(old)
                    .bind(new)
                    .bind(["id", "email"])
                    .bind(["id", "email"])
                    .bind([true, true])
                    .bind("public.t_old")
                    .bind(false)
                    .fetch_all(&mut conn)
                    .await
                    .unwrap();
                lines.extend(rows.iter().map(|row| row.get::<String, _>(2)));
            }
            given.push(lines);
        }
        conn.close().await.unwrap();
        database.gone().await;
        let (today, older) = (&given[0], &given[1]);
        for line in [
            "ALTER PUBLICATION p ADD TABLE public.t; ALTER PUBLICATION p DROP TABLE public.t_old",
            "GRANT SELECT ON TABLE public.t TO PUBLIC",
            "ALTER TABLE public.t ALTER COLUMN email SET STATISTICS 7",
        ] {
            let has = |lines: &[String]| lines.iter().any(|it| it == line);
            assert!(has(today) && has(older), "{line}: {given:#?}");
        }
        // What it can't know is not there.
        for word in ["ADD TABLE public.t (id) WHERE", "SET COMPRESSION"] {
            let has = |lines: &[String]| lines.iter().any(|it| it.contains(word));
            assert!(has(today) && !has(older), "{word}: {given:#?}");
        }
    }
}
