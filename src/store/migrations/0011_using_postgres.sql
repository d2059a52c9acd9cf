-- Once a statement. What an upsert changes is not inserted: then there is nothing to do.
CREATE FUNCTION note_unused_keys() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO key_unused (key_id, tenant_id) SELECT id, tenant_id FROM inserted
        ON CONFLICT (key_id) DO NOTHING;
    RETURN NULL;
END;
$$;

CREATE TRIGGER api_keys_never_used AFTER INSERT ON api_keys
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION note_unused_keys();

CREATE FUNCTION note_first_uses() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    used RECORD;
BEGIN
    -- One by one: each is found by an index, whatever a planner thinks of how many there are.
    FOR used IN SELECT key_id, generation FROM inserted LOOP
        UPDATE key_uses SET tenant_id = (SELECT tenant_id FROM api_keys WHERE id = used.key_id)
            WHERE key_id = used.key_id AND generation = used.generation;
        DELETE FROM key_unused WHERE key_id = used.key_id;
    END LOOP;
    RETURN NULL;
END;
$$;

CREATE TRIGGER key_uses_first AFTER INSERT ON key_uses
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION note_first_uses();
