//! plans/add-required-column.yaml and plans/split-user-email.yaml: single columns, inside a table and out of it.

use super::Example;

const CHECKOUT: (&str, &[&str]) = ("ready-to-switch", &["chloe"]);
const IDENTITY: (&str, &[&str]) = ("ready-to-switch", &["ida"]);
const DROP: (&str, &[&str]) = ("ready-to-drop", &["dee"]);

#[test]
fn amounts_become_cents_while_both_shapes_are_written() {
    let Some(example) = Example::new("add-required-column") else { return };
    example.database.run("CREATE SCHEMA kept; CREATE TABLE kept.orders AS TABLE orders");
    example.run(&["--to", "dual-write"]).expect(0);
    // An application of each shape, and beside them the same in decimals.
    example.database.run(
        "INSERT INTO orders (id, customer, amount, placed_at) VALUES (900001, 'old', 12.34, '2025-06-01 00:00:00+00');
         INSERT INTO orders (id, customer, amount_cents, placed_at) VALUES (900002, 'new', 5678, '2025-06-01 00:00:00+00');
         UPDATE orders SET amount = amount + 1 WHERE id % 50 = 3;
         UPDATE orders SET amount_cents = 99 WHERE id % 50 = 4;
         DELETE FROM orders WHERE id % 50 = 5",
    );
    example.database.run(
        "INSERT INTO kept.orders VALUES (900001, 'old', 12.34, '2025-06-01 00:00:00+00'),
           (900002, 'new', 56.78, '2025-06-01 00:00:00+00');
         UPDATE kept.orders SET amount = amount + 1 WHERE id % 50 = 3;
         UPDATE kept.orders SET amount = 0.99 WHERE id % 50 = 4;
         DELETE FROM kept.orders WHERE id % 50 = 5",
    );
    example.run(&[]).expect(4);
    let required = "SELECT attnotnull FROM pg_attribute
        WHERE attrelid = 'orders'::regclass AND attname = 'amount_cents'";
    assert_eq!(example.database.value(required), "t");
    example.same_rows(
        "SELECT id, customer, amount, (amount * 100)::bigint, placed_at FROM kept.orders",
        "SELECT id, customer, amount, amount_cents, placed_at FROM orders",
    );
    example.approve(CHECKOUT.0, CHECKOUT.1);
    example.run(&[]).expect(4);
    // Still both ways, under the new name.
    example.database.run("UPDATE orders SET amount_cents = 4242 WHERE id = 10");
    assert_eq!(example.database.value("SELECT amount_old FROM orders WHERE id = 10"), "42.42");
    example.database.run("UPDATE orders SET amount_old = 0.17 WHERE id = 10");
    assert_eq!(example.database.value("SELECT amount_cents FROM orders WHERE id = 10"), "17");
    example.database.run("UPDATE kept.orders SET amount = 0.17 WHERE id = 10");

    example.approve(DROP.0, DROP.1);
    example.run(&["--wait", "30s"]).expect(0);
    example.same_rows(
        "SELECT id, customer, placed_at, (amount * 100)::bigint FROM kept.orders",
        "SELECT id, customer, placed_at, amount_cents FROM orders",
    );
    let columns = "SELECT string_agg(column_name, ',' ORDER BY ordinal_position)
        FROM information_schema.columns WHERE table_schema = 'public' AND table_name = 'orders'";
    assert_eq!(example.database.value(columns), "id,customer,placed_at,amount_cents");
    assert_eq!(example.database.value(required), "t");
    let left = "SELECT count(*) FROM pg_constraint WHERE conname = 'orders_amount_cents_is_set'";
    assert_eq!(example.database.value(left), "0");
    example.is_over("completed");
}

#[test]
fn orders_are_as_before_when_the_required_column_is_rolled_back() {
    let Some(example) = Example::new("add-required-column") else { return };
    let before = example.database.dump();
    example.run_up_to("ready-to-drop", &[CHECKOUT, DROP]);
    assert_eq!(example.database.value("SELECT count(amount_old) FROM orders"), "4000");
    example.phasegate(&["rollback", example.name, "--yes"]).expect(0);
    example.is_as(&before);
    example.is_over("rolled_back");
}

#[test]
fn what_the_new_shape_wrote_is_kept_when_the_required_column_is_rolled_back() {
    let Some(example) = Example::new("add-required-column") else { return };
    example.run_up_to("ready-to-drop", &[CHECKOUT, DROP]);
    example.database.run("UPDATE orders SET amount_cents = 123456 WHERE id = 77");
    example.phasegate(&["rollback", example.name, "--yes"]).expect(0);
    assert_eq!(example.database.value("SELECT amount FROM orders WHERE id = 77"), "1234.56");
}

#[test]
fn addresses_move_into_profiles_that_are_there_already() {
    let Some(example) = Example::new("split-user-email") else { return };
    example.database.run(
        "CREATE SCHEMA kept; CREATE TABLE kept.users AS TABLE users;
         CREATE TABLE kept.profiles AS TABLE profiles",
    );
    example.run(&["--to", "dual-write"]).expect(0);
    for schema in ["public", "kept"] {
        example.database.run(&format!(
            "UPDATE {schema}.users SET email = 'changed.' || id || '@example.com' WHERE id % 40 = 1;
             UPDATE {schema}.users SET email = NULL WHERE id % 40 = 2;
             UPDATE {schema}.profiles SET bio = 'rewritten' WHERE user_id % 40 IN (1, 3)"
        ));
    }
    // Profiles go with their users by the foreign key, which the copies haven't got.
    example.database.run(
        "DELETE FROM users WHERE id % 40 = 5; DELETE FROM kept.users WHERE id % 40 = 5;
         DELETE FROM kept.profiles WHERE user_id % 40 = 5",
    );
    example.run_through(&[IDENTITY, DROP]);
    example.same_rows(
        "SELECT p.user_id, p.bio, p.language, u.email FROM kept.profiles p JOIN kept.users u ON u.id = p.user_id",
        "SELECT user_id, bio, language, email FROM profiles",
    );
    example.same_rows("SELECT id, name, created_at FROM kept.users", "SELECT * FROM users");
    let unique = "SELECT count(*) FROM pg_index WHERE indrelid = 'profiles'::regclass AND indisvalid AND indisunique";
    assert_eq!(example.database.value(unique), "2");
    example.is_over("completed");
}

#[test]
fn users_are_as_before_when_the_split_is_rolled_back() {
    let Some(example) = Example::new("split-user-email") else { return };
    let before = example.database.dump();
    example.run_up_to("ready-to-drop", &[IDENTITY, DROP]);
    assert_eq!(
        example.database.value("SELECT count(*) FROM users u JOIN profiles p ON p.user_id = u.id AND p.email = u.email_old"),
        example.database.value("SELECT count(email_old) FROM users"),
    );
    example.phasegate(&["rollback", example.name, "--yes"]).expect(0);
    example.is_as(&before);
    example.is_over("rolled_back");
}
