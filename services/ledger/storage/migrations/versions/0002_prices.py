"""The price book: what each model costs from when on, and who gets what off.

Records are priced as they arrive and keep the number of the version that priced them, so a version is never rewritten:
a new price is a new version, and a discount ends by its end time.
"""

from alembic import op

from services.ledger.storage.migrations.access import open_table

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_price_book()
    _create_price_version()
    _create_price_condition()
    _create_price()
    _create_discount()
    _create_catalogue_load()


def _create_price_book() -> None:
    op.execute("""
        -- One row. Locked by whoever publishes, so that numbers rise in the order of publication; read by every ledger
        -- each second, to notice that something was.
        CREATE TABLE ledger.price_book (
            only_row         BOOLEAN PRIMARY KEY CHECK (only_row),
            revision         BIGINT NOT NULL,
            last_version_id  BIGINT NOT NULL,
            last_discount_id BIGINT NOT NULL
        )
    """)
    op.execute("INSERT INTO ledger.price_book VALUES (true, 0, 0, 0)")
    open_table(op, "price_book", append_only=True)
    op.execute("GRANT UPDATE ON ledger.price_book TO tollgate_ledger")


def _create_price_version() -> None:
    op.execute("""
        -- The prices of one model at one provider from a moment on. Of two for the same moment the later one holds.
        CREATE TABLE ledger.price_version (
            version_id             BIGINT PRIMARY KEY,
            provider               TEXT NOT NULL CHECK (char_length(provider) BETWEEN 1 AND 64),
            model                  TEXT NOT NULL CHECK (char_length(model) BETWEEN 1 AND 256),
            valid_from             TIMESTAMPTZ NOT NULL,
            source                 TEXT NOT NULL,
            tokens_per_input_image INTEGER CHECK (tokens_per_input_image >= 1),
            create_time            TIMESTAMPTZ NOT NULL
        )
    """)
    op.execute("CREATE INDEX price_version_by_model ON ledger.price_version (provider, model, valid_from)")
    open_table(op, "price_version", append_only=True)


def _create_price_condition() -> None:
    op.execute("""
        -- When a group of prices holds. In order: the base, windows and service tiers, each followed by its tiers.
        CREATE TABLE ledger.price_condition (
            version_id          BIGINT NOT NULL REFERENCES ledger.price_version,
            condition_number    SMALLINT NOT NULL CHECK (condition_number >= 0),
            -- A tier of what comes before it, for calls of at most so many input tokens; NULL for any number.
            is_tier             BOOLEAN NOT NULL,
            up_to_tokens        BIGINT CHECK (up_to_tokens >= 0),
            service_tier        TEXT CHECK (service_tier <> ''),
            multiplier          NUMERIC(28,18) CHECK (multiplier >= 0),
            -- UTC. The end is exclusive and may be past midnight. Weekdays as ISO counts them, from Monday.
            window_start_minute SMALLINT CHECK (window_start_minute BETWEEN 0 AND 1439),
            window_end_minute   SMALLINT CHECK (window_end_minute BETWEEN 1 AND 1440),
            window_weekdays     SMALLINT[] CHECK (window_weekdays <@ '{1,2,3,4,5,6,7}' AND window_weekdays <> '{}'),
            PRIMARY KEY (version_id, condition_number),

            CONSTRAINT price_condition_tier_has_bound CHECK (is_tier OR up_to_tokens IS NULL),
            CONSTRAINT price_condition_service_tier_whole CHECK ((service_tier IS NULL) = (multiplier IS NULL)),
            CONSTRAINT price_condition_window_whole
                CHECK (num_nulls(window_start_minute, window_end_minute, window_weekdays) IN (0, 3)),
            CONSTRAINT price_condition_is_one_thing
                CHECK (is_tier::int + (service_tier IS NOT NULL)::int + (window_start_minute IS NOT NULL)::int
                       = (condition_number > 0)::int)
        )
    """)
    open_table(op, "price_condition", append_only=True)


def _create_price() -> None:
    op.execute("""
        -- What one unit costs under a condition, in USD. No row is no price, which is not 0.
        CREATE TABLE ledger.price (
            version_id       BIGINT NOT NULL,
            condition_number SMALLINT NOT NULL,
            -- tollgate.ledger.v1.PriceUnit
            unit             SMALLINT NOT NULL CHECK (unit BETWEEN 1 AND 16),
            -- Of a generated image (unit 13); empty for any, both empty for the default.
            size             TEXT NOT NULL,
            quality          TEXT NOT NULL,
            price            NUMERIC(28,18) NOT NULL CHECK (price >= 0),
            PRIMARY KEY (version_id, condition_number, unit, size, quality),
            FOREIGN KEY (version_id, condition_number) REFERENCES ledger.price_condition,

            CONSTRAINT price_size_of_images_only CHECK (unit = 13 OR (size = '' AND quality = ''))
        )
    """)
    open_table(op, "price", append_only=True)


def _create_discount() -> None:
    op.execute("""
        -- A fraction off. NULL means everyone, every provider, every model.
        CREATE TABLE ledger.discount (
            discount_id     BIGINT PRIMARY KEY,
            organization_id UUID,
            provider        TEXT CHECK (char_length(provider) BETWEEN 1 AND 64),
            model           TEXT CHECK (char_length(model) BETWEEN 1 AND 256),
            fraction        NUMERIC(28,18) NOT NULL CHECK (fraction BETWEEN 0 AND 1),
            valid_from      TIMESTAMPTZ NOT NULL,
            valid_to        TIMESTAMPTZ CHECK (valid_to >= valid_from),
            create_time     TIMESTAMPTZ NOT NULL,

            -- There is no such level: it would never match.
            CONSTRAINT discount_of_organization_names_something
                CHECK (organization_id IS NULL OR provider IS NOT NULL OR model IS NOT NULL)
        )
    """)
    open_table(op, "discount", append_only=True)
    # What a discount gives is settled when it is made; afterwards it can only end.
    op.execute("GRANT UPDATE (valid_to) ON ledger.discount TO tollgate_ledger")


def _create_catalogue_load() -> None:
    op.execute("""
        -- Each edition of the price catalogue that was loaded, once.
        CREATE TABLE ledger.catalogue_load (
            source    TEXT PRIMARY KEY,
            load_time TIMESTAMPTZ NOT NULL
        )
    """)
    open_table(op, "catalogue_load", append_only=True)


def downgrade() -> None:
    raise NotImplementedError("a ledger goes forward only; restore a backup to go back")
