CREATE TRIGGER api_keys_count_inserted AFTER INSERT ON api_keys
BEGIN
    INSERT INTO tenants (id, created_at, updated_at)
        VALUES (NEW.tenant_id, NEW.created_at, NEW.created_at) ON CONFLICT (id) DO NOTHING;
    UPDATE tenants SET key_count = key_count + 1
        WHERE id = NEW.tenant_id AND NEW.standing <> 'revoked';
END;

CREATE TRIGGER api_keys_count_updated AFTER UPDATE OF standing ON api_keys
WHEN (NEW.standing = 'revoked') <> (OLD.standing = 'revoked')
BEGIN
    UPDATE tenants
        SET key_count = MAX(key_count + CASE WHEN NEW.standing = 'revoked' THEN -1 ELSE 1 END, 0)
        WHERE id = NEW.tenant_id;
END;

CREATE TRIGGER api_keys_count_deleted AFTER DELETE ON api_keys WHEN OLD.standing <> 'revoked'
BEGIN
    UPDATE tenants SET key_count = MAX(key_count - 1, 0) WHERE id = OLD.tenant_id;
END;
