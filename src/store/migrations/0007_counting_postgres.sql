-- Once a statement, not once a row: a row that one transaction writes a million times gets slow.
CREATE FUNCTION count_inserted_keys() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tenants (id, key_count, created_at, updated_at)
        SELECT tenant_id, COUNT(*) FILTER (WHERE standing <> 'revoked'),
            MIN(created_at), MIN(created_at)
        FROM inserted GROUP BY tenant_id ORDER BY tenant_id
        ON CONFLICT (id) DO UPDATE SET key_count = tenants.key_count + EXCLUDED.key_count;
    RETURN NULL;
END;
$$;

CREATE TRIGGER api_keys_count_inserted AFTER INSERT ON api_keys
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION count_inserted_keys();

CREATE FUNCTION count_changed_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.standing <> 'revoked' THEN
        UPDATE tenants SET key_count = key_count + 1 WHERE id = NEW.tenant_id;
    ELSE
        UPDATE tenants SET key_count = GREATEST(key_count - 1, 0) WHERE id = OLD.tenant_id;
    END IF;
    RETURN NULL;
END;
$$;

CREATE TRIGGER api_keys_count_updated AFTER UPDATE OF standing ON api_keys
    FOR EACH ROW WHEN ((NEW.standing = 'revoked') <> (OLD.standing = 'revoked'))
    EXECUTE FUNCTION count_changed_key();

CREATE TRIGGER api_keys_count_deleted AFTER DELETE ON api_keys
    FOR EACH ROW WHEN (OLD.standing <> 'revoked')
    EXECUTE FUNCTION count_changed_key();
